// Package model holds the words of the domain: apps, the microVMs of an app,
// and the names both go by. It is plain data; every other package may use it.
package model
