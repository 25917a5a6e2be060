package suffix_test

import (
	"testing"

	"github.com/tunneld/tunneld/internal/suffix"
)

func TestPublic(t *testing.T) {
	public := []string{
		"com", "uk", "co.uk", "dev", "app", "zip", "onion", "arpa", "xn--p1ai",
		"github.io", "pages.dev", "s3.amazonaws.com",
		"ck", "foo.ck", "er", "kawasaki.jp", "foo.kawasaki.jp", "compute.amazonaws.com",
	}
	for _, domain := range public {
		if !suffix.Public(domain) {
			t.Errorf("%s: not taken for a public suffix", domain)
		}
	}
	own := []string{
		"local", "localhost", "test", "internal", "lan", "home", "corp", "example", "cluster.local", "corp.local",
		"home.arpa", "corp.example", "dev.example.com", "example.com", "foo.dev", "foo.app", "foo.github.io",
		"www.ck", "city.kawasaki.jp", "nip.io", "localtest.me",
	}
	for _, domain := range own {
		if suffix.Public(domain) {
			t.Errorf("%s: taken for a public suffix", domain)
		}
	}
}
