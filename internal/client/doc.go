// Package client speaks the API of zwrmd over its unix socket. It has a method
// for each thing that the command line asks for.
package client
