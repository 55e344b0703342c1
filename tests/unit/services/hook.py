"""Hook files as dhcpcd 10.1 makes us write them: its variables, taken down from a real run."""

HEAD = {"branchline_uptime": "1000.00", "branchline_boot": "b00t"}
COMMON = {"interface": "eth0", "pid": "4242", "ifcarrier": "up", "ifmtu": "1500"}

BOUND = HEAD | {
    "reason": "BOUND",
    "protocol": "dhcp",
    **COMMON,
    "new_broadcast_address": "198.51.100.255",
    "new_dhcp_lease_time": "120",
    "new_dhcp_message_type": "5",
    "new_dhcp_rebinding_time": "105",
    "new_dhcp_renewal_time": "60",
    "new_dhcp_server_identifier": "198.51.100.1",
    "new_domain_name_servers": "198.51.100.53 192.0.2.53",
    "new_interface_mtu": "1480",
    "new_ip_address": "198.51.100.65",
    "new_network_number": "198.51.100.0",
    "new_routers": "198.51.100.1",
    "new_subnet_cidr": "24",
    "new_subnet_mask": "255.255.255.0",
}
ADVERT = HEAD | {
    "reason": "ROUTERADVERT",
    "protocol": "ra",
    **COMMON,
    "nd1_acquired": "997",
    "nd1_addr1": "2001:db8:1:0:a4d7:b4ff:fe76:a4de/64",
    "nd1_flags": "h",
    "nd1_from": "fe80::58ae:a5ff:fe74:c809",
    "nd1_hoplimit": "64",
    "nd1_lifetime": "12",
    "nd1_mtu": "1400",
    "nd1_now": "999",
    "nd1_prefix_information1_flags": "LA",
    "nd1_prefix_information1_length": "64",
    "nd1_prefix_information1_prefix": "2001:db8:1::",
}
BOUND6 = HEAD | {
    "reason": "BOUND6",
    "protocol": "dhcp6",
    **COMMON,
    "new_dhcp6_ia_na1_ia_addr1": "2001:db8:1::1c9",
    "new_dhcp6_ia_na1_ia_addr1_pltime": "300",
    "new_dhcp6_ia_na1_ia_addr1_vltime": "300",
    "new_dhcp6_ia_na1_t1": "150",
    "new_dhcp6_name_servers": "2001:db8::53",
    "new_dhcp6_server_id": "000300015aaea574c809",
    "new_dhcp6_status_code_message": "success",
}


def hook_file(variables: dict[str, str]) -> bytes:
    return b"".join(f"{name}={value}\0".encode() for name, value in variables.items())
