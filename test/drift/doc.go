// Package drift has tests that change behind zwrmd's back what it keeps, and look how
// it is mended and who is named.
package drift
