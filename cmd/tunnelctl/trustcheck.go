package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"

	"github.com/tunneld/tunneld/internal/localapi"
	"github.com/tunneld/tunneld/internal/tls/verifiers"
	"github.com/tunneld/tunneld/internal/usage"
)

// askClients asks the TLS clients of this machine whether they trust the CA. The exit
// status is 1 if one does not.
func (t *trust) askClients(ctx context.Context) error {
	if os.Getenv("SUDO_UID") != "" && os.Geteuid() == 0 {
		return usage.WithHint(fmt.Errorf("what clients trust depends on the user, and root's are not yours"), "tunnelctl trust --check, without sudo")
	}
	cert, err := t.checkLeaf(ctx)
	if err != nil {
		return err
	}
	results, err := new(verifiers.Checker).Check(ctx, cert)
	if err != nil {
		return err
	}
	if *t.format == "json" {
		err = t.ui.json(results)
	} else {
		t.ui.clients(results)
	}
	if err != nil {
		return err
	}
	refused, asked := 0, 0
	for _, r := range results {
		switch r.Verdict {
		case verifiers.Refuses:
			refused++
			asked++
		case verifiers.Trusts, verifiers.Careless:
			asked++
		}
	}
	if refused > 0 {
		return &localapi.Error{Message: fmt.Sprintf("%d of %d clients do not trust the local CA", refused, asked)}
	}
	return nil
}

// checkLeaf has a key certified for this check. The key does not leave this process.
func (t *trust) checkLeaf(ctx context.Context) (cert tls.Certificate, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return cert, err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return cert, err
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	chain, err := t.client.CheckLeaf(ctx, localapi.Key{PublicKey: string(public)})
	if err != nil {
		return cert, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return cert, err
	}
	cert, err = tls.X509KeyPair(chain, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	if err != nil {
		return cert, fmt.Errorf("read the certificate for the check: %w", err)
	}
	return cert, nil
}

// clients prints each client on a line, and its fix, if there is one, below it.
func (u *ui) clients(results []verifiers.Result) {
	width := 0
	for _, r := range results {
		width = max(width, len(r.Client))
	}
	for _, r := range results {
		line := fmt.Sprintf("%-*s  %s", width, r.Client, r.Verdict)
		if r.Verdict != verifiers.Trusts && r.Evidence != "" {
			line += ": " + r.Evidence
		}
		fmt.Fprintln(u.out, line)
		if r.Fix != "" {
			fmt.Fprintf(u.out, "%-*s  fix: %s\n", width, "", r.Fix)
		}
	}
}
