// Package page has what the benchmarks share that write their figures into a page
// of docs/.
package page
