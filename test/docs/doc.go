// Package docs keeps the listings of docs/networking.md: it takes each from a live
// host and fails when the page shows another.
package docs
