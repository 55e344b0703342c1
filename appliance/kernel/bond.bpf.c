// SPDX-License-Identifier: Apache-2.0
//
// Spreads the packets of a flow over the planes that carry its class together: each goes where the
// shaper lets it through first (docs/adr/0021-one-flow-over-all-lines.md).
//
// It is on the egress of all of these planes, before the filter that makes packets wait, and sees
// each packet up to three times: where routing sent it, where it was sent instead, and when it has
// waited. By what it noted in the packet (its place among all octets of the flow that were ever sent
// to wait there) it knows at the end how many still wait behind it, whatever was dropped, and how
// fast they leave. No rate is told: the share that a flow gets of a line is what it is seen to get.
// What only acknowledges data goes by a second plane too, often, so that no line that dies takes all
// of it.
//
// Built by `make bpf`, loaded by kernel/bond.py, one instance for all planes.

#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define STRIPED 0xb2 // in tc_index, which WireGuard takes away: has come from another plane ...
#define WAITING 0xb3 // ... and was sent to wait
#define CLASS 0xf0000000
#define MOST 8 // planes of one bond
#define MEMORY_NS (64 * 1000000ULL) // over how long a time a rate is measured
#define BLIND 4500 // octets that may wait where it is not known how fast they leave
#define NEVER (~0ULL)
#define IDLE_NS 1000000000ULL // what comes out after so long had not waited for others: nobody does
// How much sooner another plane must let a packet through: what reordering is worth, and so that one
// queue stands longer than the others, and an AQM drops there first. A flow slows down once, then.
#define LEAN_NS (1 * 1000000ULL)
#define TCP 6
#define FIN_SYN_RST 7
#define HEADERS_MOST 120 // octets of IP and TCP together

struct map { // read by kernel/ebpf.py
	__u32 type, key_size, value_size, max_entries;
};

struct destination {
	__u32 length; // of class and prefix, in bits
	__be32 mark;  // of the class
	__be32 address[4]; // IPv4 as ::ffff:0:0/96
};

struct bond {
	__u32 count;
	__u32 devices[MOST];
};

struct line { // of a flow on a plane
	__u32 flow, device;
};

struct queue { // octets, except for times
	__u64 entered, entered_at; // since ever; when the latest did
	__u64 left;    // of these, as of the latest that left
	__u64 left_at; // when it did; 0: none has
	__u64 place;   // of it ...
	__u64 pieces;  // ... and of what left of it so far: it may have been cut up
	__u32 length, is_busy;	   // of the latest that left, and whether others waited behind it
	__u64 drained, drained_ns; // while others did
};

struct map bonds SEC("maps") = {BPF_MAP_TYPE_LPM_TRIE, sizeof(struct destination),
				sizeof(struct bond), 65536};
struct map queues SEC("maps") = {BPF_MAP_TYPE_LRU_HASH, sizeof(struct line),
				 sizeof(struct queue), 16384};

static __always_inline struct queue *queue_of(struct __sk_buff *skb, __u32 device)
{
	struct line line = {bpf_get_hash_recalc(skb), device};
	struct queue *found = bpf_map_lookup_elem(&queues, &line), fresh = {};

	if (found)
		return found;
	bpf_map_update_elem(&queues, &line, &fresh, BPF_NOEXIST);
	return bpf_map_lookup_elem(&queues, &line);
}

// When a packet would leave that comes to wait now.
static __always_inline __u64 leaves_at(const struct queue *queue, __u64 now)
{
	__u64 octets, at;

	if (!queue->left_at || !queue->drained) // after a while nobody waits there, whatever became of it
		return queue->entered > queue->left + BLIND && now - queue->entered_at < IDLE_NS ? NEVER : now;
	octets = queue->length;
	if (queue->entered > queue->left)
		octets += queue->entered - queue->left;
	at = queue->left_at + octets * queue->drained_ns / queue->drained;
	return at > now ? at : now;
}

static __always_inline void enter(struct __sk_buff *skb, struct queue *queue, __u64 now)
{
	queue->entered_at = now;
	skb->tc_index = WAITING;
	skb->tstamp = __sync_fetch_and_add(&queue->entered, skb->len);
}

static __always_inline void leave(struct __sk_buff *skb, struct queue *queue, __u64 now)
{
	__u64 place = skb->tstamp, before = queue->left, left;

	if (place != queue->place) {
		queue->place = place;
		queue->pieces = 0;
	}
	queue->pieces += skb->len;
	left = place + queue->pieces;
	if (queue->is_busy && left > before && now - queue->left_at < IDLE_NS) {
		queue->drained += left - before;
		queue->drained_ns += now - queue->left_at;
		if (queue->drained_ns > MEMORY_NS) {
			queue->drained >>= 1;
			queue->drained_ns >>= 1;
		}
	}
	queue->left = left;
	queue->left_at = now;
	queue->length = skb->len;
	queue->is_busy = queue->entered > left;
}

// A TCP segment with neither data nor SYN, FIN or RST? A light flow stays on one line, and when that is
// dead, its far end hears of nothing that the others deliver: it waits for its retransmission timer
// (RFC 6298), long after the data has left that line. A copy is what any network may make, and when
// it comes later, it tells nothing new.
static __always_inline int only_acknowledges(struct __sk_buff *skb, int is_ipv4)
{
	__u8 version, protocol, offset_flags[2];
	__u32 tcp = 40;

	if (skb->len > HEADERS_MOST || bpf_skb_load_bytes(skb, is_ipv4 ? 9 : 6, &protocol, 1) ||
	    protocol != TCP || bpf_skb_load_bytes(skb, 0, &version, 1))
		return 0;
	if (is_ipv4)
		tcp = (version & 15) * 4;
	return !bpf_skb_load_bytes(skb, tcp + 12, offset_flags, 2) && !(offset_flags[1] & FIN_SYN_RST) &&
	       skb->len == tcp + (offset_flags[0] >> 4) * 4;
}

SEC("bond")
int spread(struct __sk_buff *skb)
{
	int is_ipv4 = skb->protocol == bpf_htons(0x0800);
	__u32 own = skb->ifindex, best = own, second, state = skb->tc_index;
	struct destination to = {.length = 32 + 128, .mark = bpf_htonl(skb->mark & CLASS)};
	__u64 now = bpf_ktime_get_ns(), first;
	struct queue *queue;
	struct bond *bond;

	if (state == WAITING || state == STRIPED) {
		queue = queue_of(skb, own);
		if (queue && state == STRIPED) {
			enter(skb, queue, now);
			return TC_ACT_UNSPEC;
		}
		if (queue)
			leave(skb, queue, now);
		skb->tc_index = 0;
		skb->tstamp = 0; // else it would be for a qdisc of the line to obey
		return TC_ACT_UNSPEC;
	}
	if (is_ipv4) {
		to.address[2] = bpf_htonl(0xffff);
		if (bpf_skb_load_bytes(skb, 16, &to.address[3], 4))
			return TC_ACT_UNSPEC;
	} else if (skb->protocol != bpf_htons(0x86dd) ||
		   bpf_skb_load_bytes(skb, 24, to.address, 16)) {
		return TC_ACT_UNSPEC;
	}
	bond = bpf_map_lookup_elem(&bonds, &to);
	queue = bond && bond->count > 1 ? queue_of(skb, own) : 0;
	if (!queue)
		return TC_ACT_UNSPEC;
	second = bond->devices[bpf_get_prandom_u32() % bond->count % MOST];
	if (second != own && only_acknowledges(skb, is_ipv4)) {
		skb->tc_index = STRIPED;
		bpf_clone_redirect(skb, second, 0);
		skb->tc_index = state;
	}
	first = leaves_at(queue, now);
	first = first > now + LEAN_NS ? first - LEAN_NS : now;
	for (__u32 n = 0; n < MOST && n < bond->count; n++) {
		__u32 device = bond->devices[n];
		struct queue *other = device == own ? 0 : queue_of(skb, device);
		__u64 at = other ? leaves_at(other, now) : now;

		if (other && at < first) {
			first = at;
			best = device;
		}
	}
	if (best == own) {
		enter(skb, queue, now);
		return TC_ACT_UNSPEC;
	}
	skb->tc_index = STRIPED;
	return bpf_redirect(best, 0);
}

char _license[] SEC("license") = "Apache-2.0";
