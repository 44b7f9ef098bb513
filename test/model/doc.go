// Package model does random things to a host for a long time, keeps in mind in a
// small model what was asked for, and compares after each step. Nothing may be
// lost, left over, given twice or open that should be closed, whatever fails on
// the way and wherever zwrmd dies.
package model
