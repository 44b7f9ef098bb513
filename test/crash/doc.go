// Package crash tests that zwrmd may end at any point and everything comes to be as it
// should, and that any step may fail and a request is undone.
//
// The real zwrmd runs on the real kernel, with somebody at the seam of its side
// effects (package effect): a story is told once to count them, and then once for each
// of them, which kills zwrmd there or has it fail. VMMs are stand-ins whose guests send
// to everybody they must not reach, all the while.
package crash
