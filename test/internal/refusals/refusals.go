//go:build linux

// Package refusals is what tunneld-helper must refuse on any machine, whoever has
// installed it.
package refusals

import (
	"encoding/json"
	"strings"

	"github.com/tunneld/tunneld/test/internal/debian"
)

// Check asks the helper at the socket, which is the user Dev's, for what it must
// refuse. The machine has the programs ask and abuse. That nothing has changed is for
// the caller to look at.
func Check(m *debian.Machine, socket string) {
	m.T.Helper()
	if _, err := m.Try(debian.Other, debian.Programs+"ask", socket, "theirs.local"); err == nil {
		m.T.Error("another user has claimed a name")
	}
	m.Script("chmod 0666 " + socket)
	refused(m, "another user who can reach the socket", debian.Other, socket, "theirs.local")
	m.Script("chmod 0600 " + socket)
	refused(m, "a name that is nobody's to claim", debian.Dev, socket, "www.example.com")
	refused(m, "the top of a suffix", debian.Dev, socket, "local")
	for line := range strings.Lines(m.Run(debian.Dev, debian.Programs+"abuse", socket)) {
		name, answer, _ := strings.Cut(strings.TrimSpace(line), "\t")
		var response struct {
			Error string `json:"error"`
		}
		if err := json.Unmarshal([]byte(answer), &response); err != nil || response.Error == "" {
			m.T.Errorf("%s: the helper answers %q, %v; want an error", name, answer, err)
		}
	}
}

func refused(m *debian.Machine, what string, uid int, socket, name string) {
	m.T.Helper()
	if _, err := m.Try(uid, debian.Programs+"ask", socket, name); err == nil || !strings.Contains(err.Error(), "refused by tunneld-helper") {
		m.T.Errorf("%s: %v; want to be refused", what, err)
	}
}
