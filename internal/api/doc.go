// Package api is the HTTP side of zwrmd: it reads requests, asks the fleet, the
// images and the network, and writes answers. It decides nothing itself.
//
// Every answer that is not a success is an RFC 9457 problem document with a code
// for scripts and a hint for people. The OpenAPI document is made from the same
// Go types that are read and written, and testdata/openapi.json shows it.
package api
