package nfnetlink

// TableName is the name of a table.
type TableName string

// ChainName is the name of a chain within its table.
type ChainName string

// SetName is the name of a set within its table.
type SetName string

// Flags of a table. Without FlagPersist a table goes with its owner.
const (
	FlagOwner   = 0x2 // NFT_TABLE_F_OWNER, since Linux 5.12
	FlagPersist = 0x4 // NFT_TABLE_F_PERSIST, since Linux 6.9
)

// Table is the head of a table.
type Table struct {
	Handle   uint64 // by which the kernel tells it from all before and after; 0: there is none
	Flags    uint32
	Owner    uint32 // port of the socket that owns it, if the flags say so
	Userdata []byte
}

// Base is where the kernel calls a chain. The zero Base is for chains that rules
// call.
type Base struct {
	Kind     string // "filter" or "nat"
	Hook     uint32 // NF_INET_*
	Priority int32
	Policy   uint32 // NF_*
}

// Chain is a chain without its rules.
type Chain struct {
	Name ChainName
	Base Base
}

// Rule is what can be told of a rule without reading its expressions.
type Rule struct {
	Chain    ChainName
	Handle   uint64
	Userdata []byte // nil: none
	Counter  *Counter
}

// Counter is how often a rule got as far as its counter. A rule without one has nil.
type Counter struct{ Packets, Bytes uint64 }

// Set is a set without its elements.
type Set struct {
	Name          SetName
	Flags         uint32
	KeyType, Size uint32
	KeyLen        uint32 // bytes
}

// Element is an element of a set.
type Element struct{ Key, Userdata []byte }
