// SPDX-License-Identifier: Apache-2.0
//
// Sends a second copy of packets of one class into another plane, from the egress of the one that
// carries the class (docs/adr/0016-voice-twice.md).
//
// The two are told apart at the far end by their hop limit: that of the copy is one less, as if it
// had come by one router more. A packet that has no hop to spare is not copied. Neither is what
// was seen here before: it is a copy, its site is excepted, or it comes from the shaper, after which
// it passes the egress again. The shaper's filter writes the mark, so that is not where it is noted.
//
// Built by `make bpf`, loaded by kernel/duplicate.py, one instance for each filter.

#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define SEEN 0xb1 // in tc_index, which the clone has as well, and WireGuard takes away
#define MASK 0xff000000   // class and uplink, see config/addressing.py
#define LEAST_HOPS 3 // of a packet that is copied: the copy, one less, still gets beyond the far end
#define NO_PREALLOC 1

struct map { // read by kernel/ebpf.py
	__u32 type, key_size, value_size, max_entries;
};

struct settings {
	__u32 mark;    // of the class
	__u32 device;  // index of the other plane; 0: packets to these prefixes are not copied
	__u32 is_bounded; // only what goes to the prefixes
	__u32 zero;
};

struct destination {
	__u32 length; // of the prefix, in bits
	__be32 address[4]; // IPv4 as ::ffff:0:0/96
};

struct map settings_of SEC("maps") = {BPF_MAP_TYPE_ARRAY, 4, sizeof(struct settings), 1};
struct map prefixes SEC("maps") = {BPF_MAP_TYPE_LPM_TRIE, sizeof(struct destination), 4, 4096};

// Where hop limits are, with the octet beside it that shares its 16 bits of an IPv4 checksum.
#define TTL4 8
#define CHECKSUM4 10
#define HOPS6 7

static __always_inline int lower(struct __sk_buff *skb, int is_ipv4, int by)
{
	__u8 octets[2] = {};
	__be16 before, after;

	if (!is_ipv4) {
		if (bpf_skb_load_bytes(skb, HOPS6, octets, 1))
			return -1;
		octets[0] -= by;
		return bpf_skb_store_bytes(skb, HOPS6, octets, 1, 0);
	}
	if (bpf_skb_load_bytes(skb, TTL4, octets, 2))
		return -1;
	before = bpf_htons(octets[0] << 8 | octets[1]);
	octets[0] -= by;
	after = bpf_htons(octets[0] << 8 | octets[1]);
	if (bpf_skb_store_bytes(skb, TTL4, octets, 1, 0))
		return -1;
	return bpf_l3_csum_replace(skb, CHECKSUM4, before, after, 2);
}

SEC("twice")
int send(struct __sk_buff *skb)
{
	__u32 zero = 0;
	int is_ipv4 = skb->protocol == bpf_htons(0x0800);
	struct settings *settings = bpf_map_lookup_elem(&settings_of, &zero);
	struct destination to = {.length = 128};
	__u8 hops;

	if (!settings || skb->tc_index == SEEN || (skb->mark & MASK) != settings->mark)
		return TC_ACT_UNSPEC;
	if (!is_ipv4 && skb->protocol != bpf_htons(0x86dd))
		return TC_ACT_UNSPEC;
	if (settings->is_bounded) {
		if (is_ipv4) {
			to.address[2] = bpf_htonl(0xffff);
			if (bpf_skb_load_bytes(skb, 16, &to.address[3], 4))
				return TC_ACT_UNSPEC;
		} else if (bpf_skb_load_bytes(skb, 24, to.address, 16)) {
			return TC_ACT_UNSPEC;
		}
		if (!bpf_map_lookup_elem(&prefixes, &to))
			return TC_ACT_UNSPEC;
	}
	if (bpf_skb_load_bytes(skb, is_ipv4 ? TTL4 : HOPS6, &hops, 1) || hops < LEAST_HOPS)
		return TC_ACT_UNSPEC;
	skb->tc_index = SEEN; // of both: neither is copied again
	if (!settings->device || lower(skb, is_ipv4, 1))
		return TC_ACT_UNSPEC;
	bpf_clone_redirect(skb, settings->device, 0);
	lower(skb, is_ipv4, -1);
	return TC_ACT_UNSPEC; // whatever became of the copy
}

char _license[] SEC("license") = "Apache-2.0";
