package tls

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// secrets are the ways in which a key could be written without anybody seeing at
// once that it is one.
func secrets(t *testing.T, a authority) []string {
	t.Helper()
	d, err := a.key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	var numbers []string
	for _, b := range d {
		numbers = append(numbers, fmt.Sprint(b))
	}
	return []string{
		string(d), hex.EncodeToString(d), strings.ToUpper(hex.EncodeToString(d)), new(big.Int).SetBytes(d).String(),
		base64.RawStdEncoding.EncodeToString(d)[:40], base64.RawURLEncoding.EncodeToString(d)[:40], strings.Join(numbers, " "),
		"PRIVATE KEY",
	}
}

func checkNoSecret(t *testing.T, what, text string, secrets []string) {
	t.Helper()
	for _, s := range secrets {
		if strings.Contains(text, s) {
			t.Errorf("%s has a key in it: %q", what, text)
		}
	}
}

// Whatever is printed by mistake, and however, a key is not among it.
func TestPrintedWithoutItsKey(t *testing.T) {
	ca, err := Load(t.TempDir(), "local")
	if err != nil {
		t.Fatal(err)
	}
	i := ca.live.Load()
	secrets := secrets(t, i.authority)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, v := range []any{ca, i, i.authority, &i.authority, struct{ CA *CA }{ca}, []any{i.authority}, map[string]authority{"a": i.authority}} {
			checkNoSecret(t, fmt.Sprintf("%T by %s", v, verb), fmt.Sprintf(verb, v), secrets)
		}
	}
	var text, lines bytes.Buffer
	for _, log := range []*slog.Logger{slog.New(slog.NewTextHandler(&text, nil)), slog.New(slog.NewJSONHandler(&lines, nil))} {
		log.Info("made", "ca", ca, "authority", i.authority, "pointer", &i.authority)
	}
	encoded, _ := json.Marshal([]any{i.authority, &i.authority, i})
	for _, out := range []string{text.String(), lines.String(), string(encoded)} {
		checkNoSecret(t, "a log", out, secrets)
	}
	if want := "local CA " + ca.Fingerprint(); fmt.Sprintf("%+v", ca) != want || !strings.Contains(text.String(), want) {
		t.Errorf("printed as %+v, and logged as %s; want %s", ca, text.String(), want)
	}
}

// One file holds a key, and nobody else may read it; no root key is anywhere.
func TestOneFileHoldsTheKey(t *testing.T) {
	dir := t.TempDir()
	ca, err := Load(dir, "local")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		secrets := secrets(t, ca.live.Load().authority)
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			data, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			if e.Name() != keyFile {
				checkNoSecret(t, e.Name(), string(data), secrets)
				continue
			}
			key, err := parseKey(data)
			if err != nil || key.PublicKey.Equal(ca.Root().PublicKey) || !key.Equal(ca.live.Load().key) {
				t.Errorf("%s holds another key than the intermediate's (%v)", e.Name(), err)
			}
			if info, err := e.Info(); err != nil || info.Mode() != 0o600 && runtime.GOOS != "windows" {
				t.Errorf("%s has mode %v (%v)", e.Name(), info.Mode(), err)
			}
		}
		if err := ca.Renew(t.Context(), "asked for"); err != nil {
			t.Fatal(err)
		}
	}
}
