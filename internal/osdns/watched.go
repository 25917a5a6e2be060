package osdns

// Watched are the files whose change may mean that a claim does not hold any
// more.
func Watched() []string {
	return []string{"/etc/hosts", "/etc/nsswitch.conf", "/etc/resolv.conf"}
}
