// Package nstest lets tests work on a real kernel without touching the machine's
// own network: Main runs a whole test binary in network and mount namespaces of
// its own, New makes further network namespaces, Veth connects them, and Guest is
// a machine behind a TAP. All of it needs root, and all of it ends with the test.
//
//	func TestMain(m *testing.M) { nstest.Main(m) }
package nstest
