// Package peer knows who asks: the process at the other end of a unix socket. What a
// request names by its path is opened with the rights of whoever sent it, so that
// the right to ask zwrmd is not the right to read what root can.
package peer
