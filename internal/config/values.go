package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/tunneld/tunneld/internal/nearest"
	"github.com/tunneld/tunneld/internal/suffix"
)

// isLabel reports whether s is an RFC 1123 label as Kubernetes wants them, in
// lower case.
func isLabel(s string) bool {
	return s != "" && len(s) <= 63 && s[0] != '-' && s[len(s)-1] != '-' &&
		strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// CheckName says why s cannot be the name of a forward, after "it"; empty if it
// can.
func CheckName(s string) string {
	if isLabel(s) {
		return ""
	}
	return "must be lower-case letters, digits and hyphens, at most 63, with no hyphen first or last"
}

// CheckPortName says why s cannot be the name of a port; empty if it can.
// Containers' ports have IANA service names, Services' have labels.
func CheckPortName(s string) string {
	if isLabel(s) && strings.Trim(s, "0123456789-") != "" {
		return ""
	}
	return "must be a number from 1 to 65535 or a port's name"
}

// isSubdomain reports whether s can be the name of a Kubernetes object.
func isSubdomain(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		// Only the whole name's length counts here, not the labels'.
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return false
		}
	}
	return len(s) <= 253
}

// maxDomain leaves room for the longest forward's name and a dot in the 253
// characters that DNS allows.
const maxDomain = 253 - 1 - 63

// checkDomain says what is wrong with a domain, or "".
func checkDomain(s string) string {
	labels := strings.Split(s, ".")
	switch {
	case strings.ToLower(s) != s:
		return fmt.Sprintf("must be in lower case: %s", strings.ToLower(s))
	case strings.HasPrefix(s, "."), strings.HasSuffix(s, "."):
		return fmt.Sprintf("must not start or end with a dot: %s", strings.Trim(s, "."))
	case len(s) > maxDomain:
		return fmt.Sprintf("is longer than %d characters: with a name in front it would be too long for DNS", maxDomain)
	}
	for _, label := range labels {
		if !isLabel(label) {
			return fmt.Sprintf("is not a DNS name: %q is not made of letters, digits and hyphens, at most 63, with no hyphen first or last", label)
		}
	}
	// Browsers take a host that ends in a number for an IPv4 address, and
	// refuse it (URL Standard, "ends in a number").
	if strings.Trim(labels[len(labels)-1], "0123456789") == "" {
		return "must not end in a number"
	}
	// The local CA could speak for all of it.
	if suffix.Public(s) {
		return fmt.Sprintf("is a public suffix, below which strangers have their names, so no CA of this machine may be for all of it: use a name below it that is yours, such as dev.example.%s, or local", s)
	}
	return ""
}

// expandPaths makes the paths of a kubeconfig value absolute, or says in msg
// why it cannot.
func expandPaths(list string, home func() (string, error)) (expanded, msg string) {
	var paths []string
	for _, p := range filepath.SplitList(list) {
		if p == "" {
			continue
		}
		if rest, ok := cutHome(p); ok {
			dir, err := home()
			if err != nil {
				return "", fmt.Sprintf("cannot tell what ~ is: %v", err)
			}
			p = filepath.Join(dir, rest)
		}
		if !filepath.IsAbs(p) {
			return "", fmt.Sprintf("%q is not an absolute path and does not start with ~/", p)
		}
		paths = append(paths, p)
	}
	if len(paths) == 0 {
		return "", "no path is in it: leave it out for the default files"
	}
	return strings.Join(paths, string(os.PathListSeparator)), ""
}

// cutHome cuts a leading ~/.
func cutHome(p string) (rest string, ok bool) {
	if rest, ok := strings.CutPrefix(p, "~/"); ok {
		return rest, true
	}
	return strings.CutPrefix(p, "~"+string(os.PathSeparator))
}

// abbreviatePaths is the reverse of expandPaths, where there is one.
func abbreviatePaths(list string, home func() (string, error)) string {
	dir, err := home()
	if err != nil || list == "" {
		return list
	}
	paths := filepath.SplitList(list)
	for i, p := range paths {
		rest, ok := strings.CutPrefix(p, filepath.Clean(dir)+string(os.PathSeparator))
		short := "~/" + filepath.ToSlash(rest)
		if back, _ := expandPaths(short, home); ok && back == p {
			paths[i] = short
		}
	}
	return strings.Join(paths, string(os.PathListSeparator))
}

// suggest ends the sentence about an unknown key.
func suggest(key string, known []string) string {
	plain := func(s string) string {
		return strings.ToLower(strings.NewReplacer("-", "", "_", "", " ", "").Replace(s))
	}
	spelt := make(map[string]string)
	var candidates []string
	for _, k := range known {
		spelt[plain(k)] = k
		candidates = append(candidates, plain(k))
	}
	if near := nearest.To(plain(key), candidates, 1); len(near) > 0 {
		return fmt.Sprintf(": did you mean %q?", spelt[near[0]])
	}
	return ", which has " + keys(known)
}

// keys lists the keys of a mapping, as people do.
func keys(known []string) string {
	last := len(known) - 1
	if last == 0 {
		return "the key " + known[0]
	}
	return "the keys " + strings.Join(known[:last], ", ") + " and " + known[last]
}
