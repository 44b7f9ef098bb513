package config

import "testing"

func TestDistance(t *testing.T) {
	tests := []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"abc", "abc", 0},
		{"subnet", "subnett", 1}, {"subnet", "subet", 1}, {"subnet", "subnot", 1}, {"subnet", "sunbet", 1},
		{"mtu", "mut", 1}, {"mtu", "dns", 3}, {"on_shutdown", "shutdown", 3}, {"ab", "ba", 1}, {"ca", "abc", 3},
	}
	for _, tt := range tests {
		if got := distance(tt.a, tt.b); got != tt.want {
			t.Errorf("distance(%q, %q) = %d, not %d", tt.a, tt.b, got, tt.want)
		}
	}
}

func TestNearest(t *testing.T) {
	candidates := []string{"subnet", "mtu", "dns", "MTU"}
	tests := map[string]string{"subnt": "subnet", "SUBNET": "subnet", "mtv": "mtu", "dnss": "dns", "": "", "x": "", "mux": "", "subscribe": ""}
	for name, want := range tests {
		if got := nearest(name, candidates); got != want {
			t.Errorf("nearest(%q) = %q, not %q", name, got, want)
		}
	}
}
