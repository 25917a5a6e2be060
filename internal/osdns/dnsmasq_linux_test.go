package osdns

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What is in the directory of dnsmasq's configuration and is no file, it passes over.
func TestDirectoryAmongDnsmasqsConfiguration(t *testing.T) {
	m := newMachine(t, with(forwarder, "/etc/dnsmasq.d/old/kept.conf", "stop-dns-rebind\n"))
	before := m.files(t)
	o, err := m.ladder(nil).Claim(t.Context(), claim("1000", "a.local"), nil)
	if err != nil || o.Rung != "dnsmasq" {
		t.Errorf("rung %q, %v; want dnsmasq", o.Rung, err)
	}
	if err := m.ladder(nil).Release(t.Context(), "1000"); err != nil {
		t.Fatal(err)
	}
	m.checkGone(t, before)
}

// A dnsmasq that does not start with the names of one owner is started with those of
// the other.
func TestDnsmasqThatDoesNotStartForTheSecondOwner(t *testing.T) {
	m := newMachine(t, with(forwarder, "/etc/dnsmasq.conf", "stop-dns-rebind\n"))
	m.brokenBy = "/b.local/"
	before := m.files(t)
	one := claim("1000", "a.local")
	if _, err := m.ladder(nil).Claim(t.Context(), one, nil); err != nil {
		t.Fatal(err)
	}
	o, err := m.ladder(nil).Claim(t.Context(), claim("1001", "b.local"), nil)
	if err != nil || o.Rung != "hosts" {
		t.Errorf("rung %q, %v; want hosts", o.Rung, err)
	}
	m.check(t, "dnsmasq", one)
	if m.dnsmasq != "active" {
		t.Errorf("dnsmasq is %s", m.dnsmasq)
	}
	for _, c := range []string{"1001", "1000"} {
		if err := m.ladder(nil).Release(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	m.checkGone(t, before)
}

// A file of the name that ours has, and that is not ours, is left alone.
func TestForeignDnsmasqConfiguration(t *testing.T) {
	m := newMachine(t, with(forwarder, "/etc/dnsmasq.d/tunneld.conf", "# mine\nserver=/corp.example/10.0.0.1\n"))
	before := m.files(t)
	o, err := m.ladder(nil).Claim(t.Context(), claim("1000", "a.local"), nil)
	if err != nil || o.Rung != "hosts" {
		t.Errorf("rung %q, %v; want hosts", o.Rung, err)
	}
	if err := m.ladder(nil).Release(t.Context(), "1000"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, m.files(t)); diff != "" {
		t.Errorf("files (-before +now):\n%s", diff)
	}
}

// A dnsmasq whose configuration somebody has broken since it started would not
// survive a restart.
func TestDnsmasqThatWouldNotStartAgain(t *testing.T) {
	const broken = "no-such-option\n"
	m := newMachine(t, forwarder)
	m.put(t, map[string]string{"/etc/dnsmasq.conf": ""})
	m.brokenBy = broken
	before := m.files(t)
	m.put(t, map[string]string{"/etc/dnsmasq.conf": broken})
	if o, err := m.ladder(nil).Claim(t.Context(), claim("1000", "a.local"), nil); err != nil || o.Rung != "hosts" {
		t.Errorf("rung %q, %v; want hosts", o.Rung, err)
	}
	if m.dnsmasq != "active" || m.starts > 0 {
		t.Errorf("dnsmasq is %s, and was started %d times", m.dnsmasq, m.starts)
	}
	m.put(t, map[string]string{"/etc/dnsmasq.conf": ""})
	c := claim("1000", "a.local")
	if o, err := m.ladder(nil).Claim(t.Context(), c, nil); err != nil || o.Rung != "dnsmasq" {
		t.Fatalf("rung %q, %v; want dnsmasq", o.Rung, err)
	}

	m.put(t, map[string]string{"/etc/dnsmasq.conf": broken})
	if err := m.ladder(nil).Release(t.Context(), "1000"); err == nil {
		t.Error("released, although that takes a restart")
	}
	if got := m.forwarded(); m.dnsmasq != "active" || len(got) > 0 {
		t.Errorf("dnsmasq is %s, and asks us for %v", m.dnsmasq, got)
	}
	m.put(t, map[string]string{"/etc/dnsmasq.conf": ""})
	if err := m.ladder(nil).Release(t.Context(), "1000"); err != nil {
		t.Fatal(err)
	}
	m.checkGone(t, before)
}
