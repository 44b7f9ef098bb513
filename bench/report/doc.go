// Package report has the results of the benchmark: as figures, as JSON, and as the
// tables and plots of docs/performance.md.
package report
