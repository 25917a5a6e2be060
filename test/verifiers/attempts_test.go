//go:build verifiers

package verifiers_test

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net"
	"net/netip"
	"testing"
)

// A wish is what must become of an attempt.
type wish int

const (
	refused  wish = iota
	accepted      // by everybody
	// configured is accepted if the CA was made for dev.example.com, and else
	// refused.
	configured
	// either is within the permitted names, but nothing that the product makes:
	// who accepts it is noted and not judged.
	either
)

// An attempt is a server's certificate, with the name that a client asks it for.
type attempt struct {
	name string // the row
	host string // a name or an address
	want wish
	// without is what everybody must make of it without constraints, where that
	// is known. It shows that only the constraints made the difference.
	without wish
	chain   func(*testing.T, *authority) tls.Certificate
}

const domain = "dev.example.com"

// Rows that holes has.
const (
	singleLabelCN = "CN evillocal"
	cnBesideIP    = "CN www.google.com, SAN 127.0.0.1"
)

// attempts are the rows of the matrix.
func attempts() []attempt {
	return append(permitted(), append(foreign(), append(commonNames(), chains()...)...)...)
}

func permitted() []attempt {
	var out []attempt
	for _, a := range []struct{ name, host string }{
		{"a served name", "task-api.local"},
		{"a name below it", "a.b.task-api.local"},
		{"in `localhost`", "task-api.localhost"},
		{"in `test`", "task-api.test"},
		{"127.0.0.1", "127.0.0.1"},
		{"another loopback address", "127.77.31.4"},
		{"::1", "::1"},
	} {
		out = append(out, attempt{name: a.name, host: a.host, want: accepted, without: accepted,
			chain: func(t *testing.T, ca *authority) tls.Certificate { return ca.product(t, a.host) }})
	}
	sign := func(name string) func(t *testing.T, ca *authority) tls.Certificate {
		return func(t *testing.T, ca *authority) tls.Certificate {
			if ca.own != nil && len(ca.own.Permitted()) > 3 {
				return ca.product(t, name)
			}
			return ca.stolen(t, named(name))
		}
	}
	return append(out,
		attempt{name: "in the configured domain", host: "task-api." + domain, want: configured, without: accepted, chain: sign("task-api." + domain)},
		attempt{name: "the configured domain", host: domain, want: configured, without: accepted, chain: sign(domain)},
		attempt{name: "the domain `local` itself", host: "local", want: either, without: either,
			chain: func(t *testing.T, ca *authority) tls.Certificate { return ca.product(t, "local") }},
		attempt{name: "`*.task-api.local`", host: "a.task-api.local", want: either, without: either, chain: signs("*.task-api.local")},
		attempt{name: "`*.local`", host: "task-api.local", want: either, without: either, chain: signs("*.local")},
	)
}

func foreign() []attempt {
	out := []attempt{
		{name: "www.google.com", host: "www.google.com", without: accepted, chain: signs("www.google.com")},
		{name: "`*.google.com`", host: "www.google.com", without: accepted, chain: signs("*.google.com")},
		{name: "both, asked for ours", host: "task-api.local", without: accepted, chain: signs("task-api.local", "www.google.com")},
		{name: "both, asked for the other", host: "www.google.com", without: accepted, chain: signs("task-api.local", "www.google.com")},
		{name: "ours and 8.8.8.8", host: "task-api.local", without: accepted, chain: signs("task-api.local", "8.8.8.8")},
		{name: "ends alike: `evillocal`", host: "evillocal", without: accepted, chain: signs("evillocal")},
		{name: "ends alike: `evil" + domain + "`", host: "evil" + domain, without: accepted, chain: signs("evil" + domain)},
		{name: "begins alike: `local.example.net`", host: "local.example.net", without: accepted, chain: signs("local.example.net")},
		{name: "above the configured domain", host: "example.com", without: accepted, chain: signs("example.com")},
		{name: "8.8.8.8", host: "8.8.8.8", without: accepted, chain: signs("8.8.8.8")},
		{name: "a private address, 10.0.0.1", host: "10.0.0.1", without: accepted, chain: signs("10.0.0.1")},
		{name: "2001:db8::1", host: "2001:db8::1", without: accepted, chain: signs("2001:db8::1")},
		{name: "::2", host: "::2", without: accepted, chain: signs("::2")},
		{name: "8.8.8.8 mapped to IPv6", host: "8.8.8.8", without: either,
			chain: raw(nil, sanIP, netip.MustParseAddr("::ffff:8.8.8.8").AsSlice())},
		{name: "8.8.8.8 as a DNS name", host: "8.8.8.8", without: either, chain: raw(nil, sanDNS, []byte("8.8.8.8"))},
		{name: "a zero byte: `www.google.com\\0.local`", host: "www.google.com", without: either, chain: raw(nil, sanDNS, []byte("www.google.com\x00.local"))},
		{name: "a final dot: `www.google.com.`", host: "www.google.com", without: either, chain: raw(nil, sanDNS, []byte("www.google.com."))},
		{name: "capitals: `WWW.GOOGLE.COM`", host: "www.google.com", without: accepted, chain: raw(nil, sanDNS, []byte("WWW.GOOGLE.COM"))},
	}
	return out
}

// commonNames have the name where some clients still look for it if it is
// nowhere else.
func commonNames() []attempt {
	cn := func(names ...string) (out pkix.Name) {
		for _, n := range names {
			out.ExtraNames = append(out.ExtraNames, pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: n})
		}
		return out
	}
	with := func(subject pkix.Name, sans ...string) func(*testing.T, *authority) tls.Certificate {
		return func(t *testing.T, ca *authority) tls.Certificate {
			template := named(sans...)
			template.Subject = subject
			return ca.stolen(t, template)
		}
	}
	return []attempt{
		{name: "CN www.google.com", host: "www.google.com", without: either, chain: with(cn("www.google.com"))},
		{name: "CN www.google.com, SAN ours", host: "www.google.com", without: either, chain: with(cn("www.google.com"), "task-api.local")},
		{name: cnBesideIP, host: "www.google.com", without: either, chain: with(cn("www.google.com"), "127.0.0.1")},
		{name: "CN www.google.com, SAN a mail address", host: "www.google.com", without: either, chain: raw(ptr(cn("www.google.com")), sanMail, []byte("a@task-api.local"))},
		{name: "CN www.google.com and CN ours", host: "www.google.com", without: either, chain: with(cn("www.google.com", "task-api.local"))},
		{name: "CN ours and CN www.google.com", host: "www.google.com", without: either, chain: with(cn("task-api.local", "www.google.com"))},
		{name: "CN `www.google.com\\0.local`", host: "www.google.com", without: either, chain: with(cn("www.google.com\x00.local"))},
		{name: "CN 8.8.8.8", host: "8.8.8.8", without: either, chain: with(cn("8.8.8.8"))},
		{name: singleLabelCN, host: "evillocal", without: either, chain: with(cn("evillocal"))},
		{name: "CN task-api.local", host: "task-api.local", want: either, without: either, chain: with(cn("task-api.local"))},
	}
}

// chains try other ways to the root.
func chains() []attempt {
	sub := pkix.Name{CommonName: "thief's intermediate"}
	out := []attempt{
		{name: "an intermediate of another root", host: "task-api.local", chain: func(t *testing.T, _ *authority) tls.Certificate {
			root, rootKey := signCA(t, x509.Certificate{Subject: pkix.Name{CommonName: "another root"}}, nil, nil)
			ca, key := signCA(t, x509.Certificate{Subject: sub}, root, rootKey)
			out := chain(t, named("task-api.local"), ca, key)
			out.Certificate = append(out.Certificate, root.Raw)
			return out
		}},
		{name: "an intermediate that names our root", host: "www.google.com", chain: func(t *testing.T, a *authority) tls.Certificate {
			// All but the signature is right.
			forged := *a.root
			key := newKey(t)
			forged.PublicKey = key.Public()
			ca, caKey := signCA(t, x509.Certificate{Subject: sub}, &forged, key)
			return chain(t, named("www.google.com"), ca, caKey)
		}},
		{name: "an intermediate that takes the name of ours", host: "www.google.com", chain: func(t *testing.T, a *authority) tls.Certificate {
			// The stolen key without the constraints, signed by itself.
			ca := x509.Certificate{RawSubject: a.intermediate.RawSubject, SubjectKeyId: a.intermediate.SubjectKeyId,
				KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
				NotBefore: a.intermediate.NotBefore, NotAfter: a.intermediate.NotAfter}
			der, err := x509.CreateCertificate(rand.Reader, &ca, &ca, a.key.Public(), a.key)
			if err != nil {
				t.Fatal(err)
			}
			return chain(t, named("www.google.com"), parse(t, der), a.key)
		}},
	}
	for _, host := range []string{"www.google.com", "task-api.local"} {
		out = append(out, attempt{name: "below an intermediate by the stolen key: " + host, host: host, without: accepted,
			chain: func(t *testing.T, a *authority) tls.Certificate {
				return a.below(t, x509.Certificate{Subject: sub}, named(host))
			}})
	}
	// RFC 5280 sections 4.2.1.9 and 4.2.1.10 exempt a certificate whose issuer
	// has its own name from path lengths and constraints, but not what is below.
	return append(out, attempt{name: "below one of the same name: www.google.com", host: "www.google.com", without: either,
		chain: func(t *testing.T, a *authority) tls.Certificate {
			return a.below(t, x509.Certificate{RawSubject: a.intermediate.RawSubject}, named("www.google.com"))
		}}, attempt{name: "below one of the same name: task-api.local", host: "task-api.local", want: either, without: either,
		chain: func(t *testing.T, a *authority) tls.Certificate {
			return a.below(t, x509.Certificate{RawSubject: a.intermediate.RawSubject}, named("task-api.local"))
		}}, attempt{name: "for clients only", host: "task-api.local", chain: func(t *testing.T, a *authority) tls.Certificate {
		template := named("task-api.local")
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		return a.stolen(t, template)
	}})
}

func ptr[T any](v T) *T { return &v }

// named is a certificate for names and addresses.
func named(names ...string) (out x509.Certificate) {
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			out.IPAddresses = append(out.IPAddresses, ip)
		} else {
			out.DNSNames = append(out.DNSNames, n)
		}
	}
	return out
}

func signs(names ...string) func(*testing.T, *authority) tls.Certificate {
	return func(t *testing.T, a *authority) tls.Certificate { return a.stolen(t, named(names...)) }
}

// Kinds of subject alternative names: the tags of GeneralName in RFC 5280 section
// 4.2.1.6.
const (
	sanMail = 1
	sanDNS  = 2
	sanIP   = 7
)

// raw signs a subject alternative name that crypto/x509 would not write.
func raw(subject *pkix.Name, kind int, value []byte) func(*testing.T, *authority) tls.Certificate {
	return func(t *testing.T, a *authority) tls.Certificate {
		der, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: kind, Bytes: value}})
		if err != nil {
			t.Fatal(err)
		}
		template := x509.Certificate{ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: der}}}
		if subject != nil {
			template.Subject = *subject
		}
		return a.stolen(t, template)
	}
}
