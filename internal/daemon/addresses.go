package daemon

import (
	"encoding/binary"
	"hash/fnv"
	"net/netip"
)

// assign gives each name an address in the prefix, which it keeps for as long
// as it has it: known is what was assigned before. A new name's address
// follows from its hash, so that it is likely to come back after a rm and an
// add, and goes on to the next free one. Names for which there is no room are
// left out.
func assign(names []string, in netip.Prefix, known map[string]netip.Addr) map[string]netip.Addr {
	addrs := make(map[string]netip.Addr, len(names))
	taken := make(map[netip.Addr]bool, len(names))
	for _, name := range names {
		if a, ok := known[name]; ok && in.Contains(a) && !taken[a] {
			addrs[name], taken[a] = a, true
		}
	}
	first := binary.BigEndian.Uint32(in.Masked().Addr().AsSlice())
	size := uint32(1) << (32 - in.Bits())
	for _, name := range names {
		if _, ok := addrs[name]; ok {
			continue
		}
		h := fnv.New32a()
		h.Write([]byte(name))
		start := h.Sum32() % size
		for i := range size {
			a := address(first + (start+i)%size)
			if !taken[a] && usable(a) {
				addrs[name], taken[a] = a, true
				break
			}
		}
	}
	return addrs
}

func address(n uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}

// usable leaves out what looks like the address of a network, or like its
// broadcast address: some programs refuse those.
func usable(a netip.Addr) bool {
	last := a.As4()[3]
	return last != 0 && last != 255
}
