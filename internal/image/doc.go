// Package image keeps guest images: a kernel, and with it what the kernel
// starts. An image is a folder; it appears and goes in one step, so nobody ever
// sees half of one.
package image
