// Package suffix knows the domains below which strangers register names of their
// own.
//
// It goes by the Public Suffix List that it was built with, which knows nothing of
// top-level domains that came later.
package suffix

import (
	"strings"

	"golang.org/x/net/publicsuffix"
)

// Public reports whether domain, in lower case and without a final dot, is a public
// suffix, such as "com", "co.uk" or "github.io", or one below which all names are.
// What no registry has (local, internal, lan) is none, and neither is home.arpa,
// which is nobody's.
func Public(domain string) bool {
	// The list has it as IANA's, who gives nothing away below it: RFC 8375 leaves it
	// to each home.
	if domain == "home.arpa" {
		return false
	}
	// Some are listed by what is below them only: *.ck.
	return listed(domain) || listed("x."+domain)
}

// listed reports whether the list has domain as a suffix. What it does not know it
// takes for a top-level domain, of which it knows the true ones.
func listed(domain string) bool {
	suffix, icann := publicsuffix.PublicSuffix(domain)
	return suffix == domain && (icann || strings.Contains(domain, "."))
}
