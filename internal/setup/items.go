package setup

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// The steps of a plan, which can be left out.
const (
	ServiceStep     = "service"
	NamesStep       = "names"
	EnvironmentStep = "environment"
	TrustStep       = "trust"
)

// DirectoryItem is a directory that everybody may enter.
func DirectoryItem(step, path, why string) Item {
	return Item{Change: Change{Step: step, Kind: Directory, Path: path, Mode: 0o755, Why: why, Undo: "removed if it is empty"}}
}

// FileItem is a file with that content.
func FileItem(step, path string, mode uint32, content []byte, why string) Item {
	return Item{
		Change:  Change{Step: step, Kind: File, Path: path, Mode: mode, SHA256: Sum(content), Why: why, Undo: "removed unless it was changed"},
		Content: content,
	}
}

// HomeItem is the directory in which the daemon keeps what it has to, and of which
// those in missing would have to be made, the outermost first.
func HomeItem(path string, missing []string) Item {
	return Item{Change: Change{
		Step: ServiceStep, Kind: Home, Path: path, Missing: missing,
		Why: "what the daemon keeps: its addresses, the key of the local CA", Undo: "removed as the user, unless it was there before",
	}}
}

// EnvironmentItem is the file with the captured environment.
func EnvironmentItem(path string) Item {
	return Item{Change: Change{
		Step: EnvironmentStep, Kind: Home, Path: path,
		Why: "PATH, proxies and the like of your login shell, for credential plugins; no secrets", Undo: "removed as the user",
	}}
}

// TrustItem is the local CA of a user whose names are below domain.
func TrustItem(domain string) Item {
	names := "names of this machine only"
	if !slices.Contains([]string{"", "local", "localhost", "test"}, domain) {
		names = "names of this machine, and ALL NAMES BELOW " + domain + ", only"
	}
	return Item{Change: Change{
		Step: TrustStep, Kind: Trust, Path: "trust stores",
		Why: "the local CA, which is good for " + names + " (tunnelctl trust --dry-run has the list)", Undo: "taken out by fingerprint",
	}}
}

// A Policy is what tunneld-helper may do for a user.
type Policy struct {
	UID string
	// Domain, Addresses and Ports are of the user's configuration.
	Domain    string
	Addresses netip.Prefix
	Ports     []uint16
}

// Item is the policy's file.
func (p Policy) Item(path string) (Item, error) {
	suffixes := []string{p.Domain}
	for _, suffix := range []string{"localhost", "svc.cluster.local"} {
		if suffix != p.Domain {
			suffixes = append(suffixes, suffix)
		}
	}
	ports := slices.DeleteFunc(slices.Clone(p.Ports), func(port uint16) bool { return port == 0 || port >= 1024 })
	text, err := json.MarshalIndent(struct {
		Version   int          `json:"version"`
		UID       json.Number  `json:"uid"`
		Suffixes  []string     `json:"suffixes"`
		Addresses netip.Prefix `json:"addresses"`
		Ports     []uint16     `json:"sharedPorts"`
	}{1, json.Number(p.UID), suffixes, p.Addresses, append([]uint16{}, ports...)}, "", "  ")
	if err != nil {
		return Item{}, fmt.Errorf("write the helper's policy: %w", err)
	}
	return FileItem(NamesStep, path, 0o644, append(text, '\n'),
		fmt.Sprintf("tunneld-helper: only names below %s, only addresses in %v", strings.Join(suffixes, ", "), p.Addresses)), nil
}
