package tls

import (
	"crypto/tls"
	"net/netip"
)

// ServerConfig is for one listener. allowed reports whether a name, in lower
// case and without a final dot, may be served; it may be called concurrently,
// and may change its mind. addr is the listener's address: a client that names
// no server, as those that were given an IP address do (RFC 6066 section 3
// forbids it in SNI), gets a certificate for that; if addr is the zero Addr,
// such a client is refused like one that asks for a name that is not allowed:
// with the alert unrecognized_name.
//
// protocols are what may be agreed on by ALPN (RFC 7301), in the order of
// preference. Without any, a client's wish is not answered, which tells it that
// the choice is between itself and whoever is behind the listener.
//
// Sessions can be resumed by any listener that shares the returned Config.
func (ca *CA) ServerConfig(allowed func(name string) bool, addr netip.Addr, protocols ...string) *tls.Config {
	addr = addr.Unmap()
	// name is what the client is to be shown a certificate for; empty if it is
	// to be refused.
	name := func(hello *tls.ClientHelloInfo) string {
		sni := normal(hello.ServerName)
		// Some clients send the address all the same.
		if ip, err := netip.ParseAddr(sni); sni == "" || err == nil && ip == addr {
			if !addr.IsValid() {
				return ""
			}
			return addr.String()
		}
		if !allowed(sni) {
			return ""
		}
		return sni
	}
	// A config without any certificate is what makes crypto/tls send
	// unrecognized_name; an error would be internal_error.
	refuse := &tls.Config{MinVersion: tls.VersionTLS12, SessionTicketsDisabled: true}

	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: protocols,
		// This is asked for every handshake, GetCertificate not for a resumed
		// one: a ticket must not outlive the name.
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if name(hello) == "" {
				return refuse, nil
			}
			return nil, nil
		},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			name := name(hello)
			if name == "" {
				return nil, nil
			}
			return ca.Leaf(hello.Context(), name)
		},
	}
}
