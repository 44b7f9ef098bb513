package cli

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// parseMemory returns a size in MiB. It reads 128M and 1G, also as 128MiB and
// 1GiB: all of them are powers of two. A number without a unit would be MiB to
// some and bytes to others, so it is refused.
func parseMemory(s string) (int, error) {
	for _, unit := range []struct {
		suffix string
		mib    int
	}{{"MiB", 1}, {"GiB", 1024}, {"M", 1}, {"G", 1024}} {
		digits, ok := strings.CutSuffix(s, unit.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 31)
		if err != nil || n == 0 || n > math.MaxInt32/uint64(unit.mib) {
			break
		}
		return int(n) * unit.mib, nil
	}
	return 0, fmt.Errorf("memory %q is not a size such as 128M or 1G", s)
}
