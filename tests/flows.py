"""Flows to every shipped application that has ports or prefixes, and where they belong by default.

Each is (application, class, protocol, destination, port). The destinations are documentation
addresses, unless the application is known by its prefixes.
"""

from ipaddress import ip_address

from appliance.config.flow import Flow
from appliance.config.intent import Protocol

ANY = "198.51.100.7"
FLOWS: tuple[tuple[str, str, str, str, int | None], ...] = (
    ("sip", "realtime", "udp", ANY, 5060),
    ("sip", "realtime", "tcp", "2001:db8:9::7", 5061),
    ("h323", "realtime", "tcp", ANY, 1720),
    ("h323", "realtime", "udp", ANY, 1719),
    ("iax", "realtime", "udp", ANY, 4569),
    ("mgcp", "realtime", "udp", ANY, 2427),
    ("rtp", "realtime", "udp", ANY, 5004),
    ("stun", "realtime", "udp", ANY, 3478),
    ("stun", "realtime", "tcp", ANY, 5349),
    ("teams", "realtime", "udp", "52.113.0.9", 3480),
    ("teams", "realtime", "udp", "2603:1063::9", 3481),
    ("zoom", "realtime", "udp", ANY, 8801),
    ("zoom", "realtime", "tcp", ANY, 8802),
    ("google-meet", "realtime", "udp", ANY, 19305),
    ("rdp", "interactive", "tcp", ANY, 3389),
    ("rdp", "interactive", "udp", "2001:db8:9::7", 3389),
    ("ssh", "interactive", "tcp", ANY, 22),
    ("telnet", "interactive", "tcp", ANY, 23),
    ("vnc", "interactive", "tcp", ANY, 5901),
    ("citrix", "interactive", "tcp", ANY, 1494),
    ("citrix", "interactive", "udp", ANY, 2598),
    ("pcoip", "interactive", "udp", ANY, 4172),
    ("teamviewer", "interactive", "tcp", ANY, 5938),
    ("anydesk", "interactive", "tcp", ANY, 6568),
    ("dns", "interactive", "udp", ANY, 53),
    ("dns", "interactive", "tcp", "2001:db8:9::7", 853),
    ("ntp", "interactive", "udp", ANY, 123),
    ("ntp", "interactive", "tcp", ANY, 4460),
    ("directory", "interactive", "tcp", ANY, 88),
    ("directory", "interactive", "tcp", ANY, 3269),
    ("directory", "interactive", "udp", ANY, 1812),
    ("xmpp", "interactive", "tcp", ANY, 5222),
    ("mail", "business", "tcp", ANY, 993),
    ("file-sharing", "business", "tcp", ANY, 445),
    ("file-sharing", "business", "udp", ANY, 2049),
    ("database", "business", "tcp", ANY, 5432),
    ("printing", "business", "tcp", ANY, 9100),
    ("ipsec", "business", "udp", ANY, 4500),
    ("ipsec", "business", "esp", ANY, None),
    ("openvpn", "business", "udp", ANY, 1194),
    ("wireguard", "business", "udp", ANY, 51820),
    ("tailscale", "business", "udp", ANY, 41641),
    ("l2tp-pptp", "business", "udp", ANY, 1701),
    ("l2tp-pptp", "business", "tcp", ANY, 1723),
    ("windows-update", "bulk", "tcp", ANY, 8530),
    ("rsync", "bulk", "tcp", ANY, 873),
    ("bacula", "bulk", "tcp", ANY, 9103),
    ("netbackup", "bulk", "tcp", ANY, 1556),
    ("iscsi", "bulk", "tcp", ANY, 3260),
    ("ftp", "bulk", "tcp", ANY, 21),
    ("dropbox", "bulk", "tcp", ANY, 17500),
    ("bittorrent", "bulk", "udp", ANY, 6881),
    ("web", "default", "tcp", ANY, 443),
    ("web", "default", "udp", "2001:db8:9::7", 443),
    ("rtsp", "default", "tcp", ANY, 554),
    ("rtmp", "default", "tcp", ANY, 1935),
)

# Names that hosts ask for before they call: (application, class, name). One for each domain of the
# catalogue, half of them below it; all are called at port 443.
NAMES: tuple[tuple[str, str, str], ...] = (
    ("teams", "realtime", "teams.microsoft.com"),
    ("teams", "realtime", "www.teams.cloud.microsoft"),
    ("teams", "realtime", "lync.com"),
    ("zoom", "realtime", "www.zoom.us"),
    ("zoom", "realtime", "zoom.com"),
    ("google-meet", "realtime", "www.meet.google.com"),
    ("google-meet", "realtime", "meetings.googleapis.com"),
    ("webex", "realtime", "www.webex.com"),
    ("webex", "realtime", "wbx2.com"),
    ("webex", "realtime", "www.ciscospark.com"),
    ("teamviewer", "interactive", "teamviewer.com"),
    ("anydesk", "interactive", "www.net.anydesk.com"),
    ("microsoft-365", "business", "outlook.cloud.microsoft"),
    ("microsoft-365", "business", "www.outlook.office.com"),
    ("microsoft-365", "business", "outlook.office365.com"),
    ("microsoft-365", "business", "www.smtp.office365.com"),
    ("microsoft-365", "business", "sharepoint.com"),
    ("microsoft-365", "business", "www.login.microsoftonline.com"),
    ("google-workspace", "business", "docs.google.com"),
    ("google-workspace", "business", "www.drive.google.com"),
    ("google-workspace", "business", "mail.google.com"),
    ("google-workspace", "business", "www.calendar.google.com"),
    ("tailscale", "business", "tailscale.com"),
    ("windows-update", "bulk", "www.windowsupdate.com"),
    ("windows-update", "bulk", "update.microsoft.com"),
    ("windows-update", "bulk", "www.delivery.mp.microsoft.com"),
    ("apple-update", "bulk", "mesu.apple.com"),
    ("apple-update", "bulk", "www.swcdn.apple.com"),
    ("apple-update", "bulk", "updates.cdn-apple.com"),
    ("debian-update", "bulk", "www.deb.debian.org"),
    ("debian-update", "bulk", "security.debian.org"),
    ("debian-update", "bulk", "www.archive.ubuntu.com"),
    ("debian-update", "bulk", "security.ubuntu.com"),
    ("backblaze", "bulk", "www.backblazeb2.com"),
    ("dropbox", "bulk", "dropbox.com"),
    ("dropbox", "bulk", "www.dropboxapi.com"),
    ("youtube", "default", "youtube.com"),
    ("youtube", "default", "www.googlevideo.com"),
    ("youtube", "default", "ytimg.com"),
    ("spotify", "default", "www.spotify.com"),
)


def flow(protocol: str, destination: str, port: int | None) -> Flow:
    """Such a flow, from a host of a documentation network, without a DSCP."""
    to = ip_address(destination)
    source = ip_address("192.0.2.10" if to.version == 4 else "2001:db8:1::10")
    return Flow(source, to, Protocol(protocol), port, lan="office")
