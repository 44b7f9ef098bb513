// Package version names the release.
package version

// Version is the release that this is, or will be.
const Version = "0.1.0"
