// SPDX-License-Identifier: Apache-2.0
//
// A STAMP Session-Reflector (RFC 8762 section 4.3, unauthenticated mode) on the ingress of planes.
//
// It answers plain and padded test packets where they arrive: no process is woken, and a supervisor
// that is busy does not look like a dead path. Whatever else comes in is left alone: packets with
// other TLVs or with NTP timestamps, which the supervisor answers, and all traffic that is not from
// the far ends of this plane to ours. Rules and bounds are those of stamp/reflector.py. Runs before
// the firewall, so it must let nobody in whom that would not.
//
// Needs a tcx attachment (Linux 6.6); built by `make bpf`, loaded by kernel/reflector.py.

#include <linux/bpf.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define SECOND 1000000000ULL
#define PTP_FORMAT 0x4000 // Z of an error estimate: the timestamp is truncated PTPv2
#define MULTIPLIER 0x00ff
#define EXTRA_PADDING 1 // type of the TLV that makes a packet larger (RFC 8972 section 4.1)
#define RESTART 1024 // a sequence number this far back is that of a sender that started anew

struct sender { // 44 octets
	__be32 sequence;
	__be32 seconds, fraction;
	__be16 error_estimate;
	__be16 ssid;
	__be32 zero[7];
};

struct reflected { // 44 octets
	__be32 sequence;
	__be32 seconds, fraction;
	__be16 error_estimate;
	__be16 ssid;
	__be32 received_seconds, received_fraction;
	__be32 sender_sequence;
	__be32 sender_seconds, sender_fraction;
	__be16 sender_error_estimate;
	__be16 zero;
	__u8 ttl;
	__u8 zeros[3];
};

struct tlv {
	__u8 flags, type;
	__be16 length;
};

struct test {
	union {
		struct sender probe;
		struct reflected answer;
	};
	struct tlv padding; // only when it is padded
};

struct packet {
	struct ipv6hdr ip;
	struct udphdr udp;
	union {
		struct test test;
		__be32 words[12];
	};
} __attribute__((packed, aligned(4)));

#define PLAIN (sizeof(struct packet) - sizeof(struct tlv))

struct map { // read by kernel/ebpf.py
	__u32 type, key_size, value_size, max_entries;
};

// What the supervisor sets.
struct settings {
	__u64 epoch_ns;      // from the monotonic clock to the session clock
	__u64 gap_ns;        // between packets of a session at its full rate
	__u64 slack_ns;      // how far ahead of it a burst may run
	__u64 total_gap_ns;  // the same of all sessions together
	__u64 total_slack_ns;
	__be16 port;
	__be16 error_estimate;
	__u32 zero;
};

struct session_key {
	struct in6_addr source;
	__be16 ssid;
	__be16 port;
};

struct session { // host order
	__u32 count;    // answers so far, or the number of the next one
	__u32 highest;  // sequence number seen
	__u32 newest;   // seconds of the timestamp that came with it
	__u32 zero;
	__u64 full_ns;  // when its token bucket will be full again
};

struct totals { // of all planes, written without a lock: a lost count is harmless
	__u64 reflected, malformed, limited;
	__u64 full_ns;
};

struct map settings_of SEC("maps") = {BPF_MAP_TYPE_ARRAY, 4, sizeof(struct settings), 1};
struct map totals_of SEC("maps") = {BPF_MAP_TYPE_ARRAY, 4, sizeof(struct totals), 1};
struct map own_address SEC("maps") = {BPF_MAP_TYPE_HASH, 4, sizeof(struct in6_addr), 256};
struct map sessions SEC("maps") = {BPF_MAP_TYPE_LRU_HASH, sizeof(struct session_key),
				   sizeof(struct session), 16384};

static __always_inline int is_same(const struct in6_addr *a, const struct in6_addr *b)
{
	return a->in6_u.u6_addr32[0] == b->in6_u.u6_addr32[0] &&
	       a->in6_u.u6_addr32[1] == b->in6_u.u6_addr32[1] &&
	       a->in6_u.u6_addr32[2] == b->in6_u.u6_addr32[2] &&
	       a->in6_u.u6_addr32[3] == b->in6_u.u6_addr32[3];
}

// Is it the address of a site on the other end of our plane? Subnets: config/addressing.py.
static __always_inline int is_far(const struct in6_addr *far, const struct in6_addr *own)
{
	__u16 plane = bpf_ntohs(own->in6_u.u6_addr16[3]);

	return far->in6_u.u6_addr32[0] == own->in6_u.u6_addr32[0] &&
	       far->in6_u.u6_addr16[2] == own->in6_u.u6_addr16[2] &&
	       far->in6_u.u6_addr16[3] == bpf_htons((plane & 0xf) << 4 | plane >> 4);
}

SEC("tcx")
int reflect(struct __sk_buff *skb)
{
	__u32 zero = 0, device = skb->ifindex, is_padded = skb->len > PLAIN;
	struct settings *settings;
	struct totals *totals;
	struct in6_addr *own;
	struct ipv6hdr *ip;
	struct packet *packet;
	struct session_key key = {};
	struct session *session;
	struct sender probe;
	__u32 sequence, seconds, number, behind;
	__be32 before[12] = {}, after[12] = {};
	__u64 now_ns, told_ns, now_s;
	__be32 now_seconds, now_fraction;
	__s64 sum;

	// Real traffic leaves here. WireGuard has made sure that the IP header can be read.
	ip = (void *)(long)skb->data;
	if (skb->protocol != bpf_htons(0x86dd) || skb->len < PLAIN ||
	    (void *)(ip + 1) > (void *)(long)skb->data_end || ip->nexthdr != 17)
		return TC_ACT_UNSPEC;
	own = bpf_map_lookup_elem(&own_address, &device);
	if (!own || !is_same(&ip->daddr, own) || !is_far(&ip->saddr, own))
		return TC_ACT_UNSPEC;

	settings = bpf_map_lookup_elem(&settings_of, &zero);
	totals = bpf_map_lookup_elem(&totals_of, &zero);
	if (!settings || !totals || bpf_skb_pull_data(skb, is_padded ? sizeof(*packet) : PLAIN))
		return TC_ACT_UNSPEC;
	packet = (void *)(long)skb->data;
	if ((void *)packet + PLAIN > (void *)(long)skb->data_end)
		return TC_ACT_UNSPEC;
	if (packet->udp.dest != settings->port || !packet->udp.check ||
	    packet->ip.payload_len != packet->udp.len ||
	    skb->len != sizeof(struct ipv6hdr) + bpf_ntohs(packet->udp.len) ||
	    !(packet->test.probe.error_estimate & bpf_htons(PTP_FORMAT)))
		return TC_ACT_UNSPEC;
	if (is_padded) {
		if ((void *)(packet + 1) > (void *)(long)skb->data_end)
			return TC_ACT_UNSPEC;
		if (packet->test.padding.type != EXTRA_PADDING ||
		    skb->len != sizeof(*packet) + bpf_ntohs(packet->test.padding.length))
			return TC_ACT_UNSPEC;
		before[11] = packet->words[11];
		packet->test.padding.flags = 0; // recognised
		after[11] = packet->words[11];
	}
	if (!(packet->test.probe.error_estimate & bpf_htons(MULTIPLIER))) {
		totals->malformed++;
		return TC_ACT_SHOT;
	}

	now_ns = bpf_ktime_get_ns();
	if (totals->full_ns > now_ns && totals->full_ns - now_ns > settings->total_slack_ns) {
		totals->limited++; // before a session is made room for
		return TC_ACT_SHOT;
	}
	key.source = packet->ip.saddr;
	key.ssid = packet->test.probe.ssid;
	key.port = packet->udp.source;
	session = bpf_map_lookup_elem(&sessions, &key);
	if (!session) {
		struct session fresh = {};

		bpf_map_update_elem(&sessions, &key, &fresh, BPF_NOEXIST);
		session = bpf_map_lookup_elem(&sessions, &key);
		if (!session)
			return TC_ACT_SHOT;
	}
	// Token buckets, known by the time at which they will be full again (GCRA).
	if (session->full_ns < now_ns)
		session->full_ns = now_ns;
	if (session->full_ns - now_ns > settings->slack_ns) {
		totals->limited++;
		return TC_ACT_SHOT;
	}
	session->full_ns += settings->gap_ns;
	if (totals->full_ns < now_ns)
		totals->full_ns = now_ns;
	totals->full_ns += settings->total_gap_ns;

	sequence = bpf_ntohl(packet->test.probe.sequence);
	seconds = bpf_ntohl(packet->test.probe.seconds);
	number = session->count;
	behind = session->highest - sequence;
	if (behind >= 1U << 31 || !number) {
		session->highest = sequence;
		session->newest = seconds;
	} else if (seconds > session->newest && (!sequence || behind >= RESTART)) {
		// Only with a newer timestamp: a replayed packet must not reset the session.
		number = 0;
		session->highest = sequence;
		session->newest = seconds;
	}
	session->count = number + 1;

	told_ns = now_ns + settings->epoch_ns;
	now_s = told_ns / SECOND;
	now_seconds = bpf_htonl(now_s);
	now_fraction = bpf_htonl(told_ns - now_s * SECOND);
	__builtin_memcpy(before, packet->words, sizeof(probe));
	probe = packet->test.probe;
	packet->test.answer = (struct reflected){
		.sequence = bpf_htonl(number),
		.seconds = now_seconds,
		.fraction = now_fraction,
		.error_estimate = settings->error_estimate,
		.ssid = probe.ssid,
		.received_seconds = now_seconds,
		.received_fraction = now_fraction,
		.sender_sequence = probe.sequence,
		.sender_seconds = probe.seconds,
		.sender_fraction = probe.fraction,
		.sender_error_estimate = probe.error_estimate,
		.ttl = packet->ip.hop_limit,
	};
	packet->ip.saddr = packet->ip.daddr;
	packet->ip.daddr = key.source;
	packet->ip.hop_limit = 64;
	packet->udp.dest = packet->udp.source;
	packet->udp.source = settings->port;
	__builtin_memcpy(after, packet->words, sizeof(probe));
	// Addresses and ports only changed places, which no sum notices (RFC 1624).
	sum = bpf_csum_diff(before, sizeof(before), after, sizeof(after),
			    (__u16)~packet->udp.check);
	sum = (sum & 0xffff) + (sum >> 16 & 0xffff);
	sum = (sum & 0xffff) + (sum >> 16);
	packet->udp.check = (__u16)~sum ? (__u16)~sum : 0xffff;
	totals->reflected++;
	return bpf_redirect(device, 0);
}

char _license[] SEC("license") = "Apache-2.0";
