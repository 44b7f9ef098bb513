package nftables

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"zwrm/internal/firewall/nftables/nfnetlink"
	"zwrm/internal/model"
)

// readTries bounds how often reading starts again because somebody changed a
// table, any on the host, in the meantime.
const readTries = 20

// snapshot is what the kernel holds. Its zero value is that there is no table.
type snapshot struct {
	nfnetlink.Table
	ours   bool // it has our comment
	chains []foundChain
	sets   []nfnetlink.Set
	apps   map[pair]string // the comment of each element of our set
}

type foundChain struct {
	nfnetlink.Chain
	rules []nfnetlink.Rule
}

// pair is the key of an element.
type pair struct{ from, to model.Group }

// readHead returns what stands at the head of the table.
func readHead(c *nfnetlink.Conn) (snapshot, error) {
	found, err := c.Table(ourTable)
	if err != nil {
		return snapshot{}, fmt.Errorf("read the head of table %q: %w", ourTable, err)
	}
	return snapshot{Table: found, ours: bytes.Equal(found.Userdata, tableUserdata())}, nil
}

// read returns what the kernel holds, all of it from one moment.
func read(c *nfnetlink.Conn) (found snapshot, err error) {
	err = together(c, func() error {
		if found, err = readHead(c); err != nil || !found.ours {
			return err
		}
		for _, part := range []func(*nfnetlink.Conn, *snapshot) error{readChains, readSets} {
			if err := part(c, &found); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return snapshot{}, fmt.Errorf("read table %q: %w", ourTable, err)
	}
	return found, nil
}

// together calls read until nobody made a transaction meanwhile: a list that was
// read in several pieces may lack rows or have some twice then, and what was listed
// may be gone.
func together(c *nfnetlink.Conn, read func() error) error {
	var gone error
	for range readTries {
		before, err := c.Generation()
		if err != nil {
			return err
		}
		gone = read()
		if gone != nil && !errors.Is(gone, unix.ENOENT) {
			return gone
		}
		after, err := c.Generation()
		if err != nil {
			return err
		}
		if gone == nil && before == after {
			return nil
		}
	}
	return errors.Join(fmt.Errorf("tables changed each of %d times they were read", readTries), gone)
}

func readChains(c *nfnetlink.Conn, found *snapshot) error {
	chains, err := c.Chains(ourTable)
	if err != nil {
		return err
	}
	rules, err := c.Rules(ourTable)
	if err != nil {
		return err
	}
	in := map[nfnetlink.ChainName][]nfnetlink.Rule{}
	for _, r := range rules {
		in[r.Chain] = append(in[r.Chain], r)
	}
	for _, chain := range chains {
		found.chains = append(found.chains, foundChain{chain, in[chain.Name]})
	}
	return nil
}

// readSets reads the sets, and the apps in ours, if there is one of the right type.
func readSets(c *nfnetlink.Conn, found *snapshot) (err error) {
	if found.sets, err = c.Sets(ourTable); err != nil || !found.hasSet() {
		return err
	}
	elements, err := c.Elements(ourTable, setName)
	if err != nil {
		return err
	}
	found.apps = map[pair]string{}
	for _, e := range elements {
		if len(e.Key) != 8 {
			return fmt.Errorf("an element of the set %q has a key of %d bytes", setName, len(e.Key))
		}
		key := pair{model.Group(binary.NativeEndian.Uint32(e.Key)), model.Group(binary.NativeEndian.Uint32(e.Key[4:]))}
		found.apps[key] = nfnetlink.Text(e.Userdata, userdata.NFTNL_UDATA_SET_ELEM_COMMENT)
	}
	return nil
}
