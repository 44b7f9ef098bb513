// Package spec holds the specification and says, for each of its sentences, which
// tests show that it is true: sentences.txt.
package spec
