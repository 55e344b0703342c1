// SPDX-License-Identifier: Apache-2.0
//
// Lets each packet that was sent twice (twice.bpf.c) in once, whichever plane brings it first.
//
// One instance for all planes, so that they share what was seen. A packet and its copy are alike
// but for the hop limit, which is one less in the copy, and for what a line may have done to ECN.
// Packets that are alike and have the same hop limit were sent on purpose: each gets through, over
// whatever planes they come. Of each that came first, one of the other hop limit is awaited, and
// dropped when it comes (docs/adr/0016-voice-twice.md).
//
// Built by `make bpf`, loaded by kernel/duplicate.py. Runs before the shaper of received packets.

#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define WORDS 12 // of 64 bits: that much of a packet is looked at
#define OCTETS (8 * WORDS)
#define AWAITED (1 << 10) // how long the other one may take, in 2^20 ns: a good second
#define MOST 0xffff        // of one kind that are awaited at the same time
#define TRIES 4

struct map { // read by kernel/ebpf.py
	__u32 type, key_size, value_size, max_entries;
};

struct settings {
	__u64 seed;    // nobody outside can make packets that look alike
	__u64 overlay; // first 48 bits of what boxes say themselves, which is not copied
};

struct map settings_of SEC("maps") = {BPF_MAP_TYPE_ARRAY, 4, sizeof(struct settings), 1};
// By the hash of packets that are alike: when the last of them came, its hop limit, and how many
// like it are awaited with the hop limit next to it. One word, so that it changes as a whole.
struct map seen SEC("maps") = {BPF_MAP_TYPE_LRU_HASH, 8, 8, 65536};

#define STATE(when, hops, count) ((__u64)(when) << 32 | (__u64)(hops) << 16 | (count))

static __always_inline __u64 mixed(__u64 hash, __u64 word)
{
	hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
	return hash ^ hash >> 29;
}

SEC("once")
int let_in(struct __sk_buff *skb)
{
	__u32 zero = 0, length = skb->len, now, hops, count, gap;
	__u64 words[WORDS] = {}, hash, before, after, fresh;
	__u8 *octets = (__u8 *)words;
	struct settings *settings = bpf_map_lookup_elem(&settings_of, &zero);
	__u64 *state;
	__s32 age;
	int is_awaited;

	// Segments that were merged on the way are TCP's, which may come twice.
	if (!settings || skb->gso_size || length < 20)
		return TC_ACT_UNSPEC;
	if (length > OCTETS)
		length = OCTETS;
	if (bpf_skb_load_bytes(skb, 0, words, length))
		return TC_ACT_UNSPEC;
	if (skb->protocol == bpf_htons(0x0800)) {
		hops = octets[8];
		octets[8] = octets[10] = octets[11] = 0; // and the checksum
		octets[1] &= 0xfc; // ECN
	} else if (skb->protocol == bpf_htons(0x86dd)) {
		if ((words[1] & bpf_cpu_to_be64(0xffffffffffff0000ULL)) == settings->overlay)
			return TC_ACT_UNSPEC;
		hops = octets[7];
		octets[7] = 0;
		octets[1] &= 0xcf; // ECN
	} else {
		return TC_ACT_UNSPEC;
	}
	hash = mixed(settings->seed, skb->len);
#pragma unroll
	for (int i = 0; i < WORDS; i++)
		hash = mixed(hash, words[i]);

	now = bpf_ktime_get_ns() >> 20;
	fresh = STATE(now, hops, 1);
	state = bpf_map_lookup_elem(&seen, &hash);
	if (!state) {
		if (!bpf_map_update_elem(&seen, &hash, &fresh, BPF_NOEXIST))
			return TC_ACT_UNSPEC;
		state = bpf_map_lookup_elem(&seen, &hash); // another processor was faster
		if (!state)
			return TC_ACT_UNSPEC;
	}
#pragma unroll
	for (int i = 0; i < TRIES; i++) {
		before = *(volatile __u64 *)state;
		count = before & 0xffff;
		gap = hops - ((before >> 16) & 0xff);
		age = now - (__u32)(before >> 32); // less than nothing: another processor's clock
		if (age > AWAITED)
			count = 0;
		is_awaited = count && (gap == 1 || gap == -1U);
		if (is_awaited)
			after = before - 1;
		else if (count && !gap)
			after = STATE(now, hops, count < MOST ? count + 1 : count);
		else
			after = fresh;
		if (__sync_val_compare_and_swap(state, before, after) == before)
			return is_awaited ? TC_ACT_SHOT : TC_ACT_UNSPEC;
	}
	return TC_ACT_UNSPEC;
}

char _license[] SEC("license") = "Apache-2.0";
