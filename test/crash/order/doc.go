// Package order is how a test tells the zwrmd under test at which side effect to die,
// or which to have fail.
package order
