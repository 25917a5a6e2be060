//go:build unix

package truststore

import "github.com/tunneld/tunneld/internal/tls/truststore/java"

func (s *Stores) jdks() java.JDKs {
	return java.JDKs{Scope: s.Scope, Home: s.Home, Root: s.root, Getenv: s.getenv, Programs: s.program()}
}
