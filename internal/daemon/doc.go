// Package daemon puts zwrmd together: it checks the host, takes up what an
// earlier zwrmd left, and runs the tasks of the daemon until it is told to stop.
package daemon
