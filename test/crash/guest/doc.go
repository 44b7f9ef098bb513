// Package guest is a machine behind a TAP that sends to everybody it must not reach,
// all the time, and notes who has reached it. It has no kernel, since there are many.
package guest
