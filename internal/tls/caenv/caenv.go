// Package caenv makes environment variables for programs that bring a list of CAs of
// their own, or whose system's list cannot be changed, so that they trust one more.
//
// Some of these variables add to a program's list. Others replace it: a program that
// is given only a local CA trusts no other server any more. Those are given a file
// of both: the list that they would have used, and the local CA.
package caenv

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// A Var is an environment variable. An empty value is for one to be unset.
type Var struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// An Env makes the variables of one user.
type Env struct {
	// Dir is where the files are put that they name; it is made if need be, and is
	// nobody else's.
	Dir string
	// Getenv is os.Getenv or like it: what a variable names already goes into the file
	// that it will name.
	Getenv func(string) string
	// System are the files of which the first that is there is the system's list.
	System []string
	// Git returns the list that git is configured with; empty if with none. Nil: none.
	Git func() string
}

// saved is the variable with what the others were before, in JSON, so that they can be
// restored whatever has become of the files.
const saved = "TUNNELD_ENV"

// A variable is one that names a list.
type variable struct {
	name string
	// adds: the list is read besides the program's own.
	adds bool
	// onlyIfSet: what the program reads without it is better, since it may be configured
	// elsewhere, or be another of these variables.
	onlyIfSet bool
}

var variables = [...]variable{
	{name: "NODE_EXTRA_CA_CERTS", adds: true},
	{name: "DENO_CERT", adds: true},
	{name: sslCertFile},                        // OpenSSL, Go, curl, cargo
	{name: "REQUESTS_CA_BUNDLE"},               // Python's requests, pip, botocore
	{name: gitCAInfo},                          // git
	{name: "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"}, // gRPC's C core
	{name: curlBundle, onlyIfSet: true},        // it hides SSL_CERT_DIR
	{name: "AWS_CA_BUNDLE", onlyIfSet: true},
	{name: "CARGO_HTTP_CAINFO", onlyIfSet: true},
}

const (
	sslCertFile = "SSL_CERT_FILE"
	curlBundle  = "CURL_CA_BUNDLE"
	gitCAInfo   = "GIT_SSL_CAINFO"
	javaOptions = "JAVA_TOOL_OPTIONS"
)

// Make writes the files and returns the variables that name them. A variable that
// names something that cannot be read is left as it is, and the notes say so.
func (e *Env) Make(root *x509.Certificate) (vars []Var, notes []string, err error) {
	if err := os.MkdirAll(e.Dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make the directory of the certificates: %w", err)
	}
	before := e.before()
	keep := make(map[string]string)
	var unset []string
	for _, v := range variables {
		base := before[v.name]
		if base == "" && v.onlyIfSet {
			continue
		}
		if base == "" && !v.adds {
			if base = e.fallback(v.name, before); base == "" {
				unset = append(unset, v.name)
				continue
			}
		}
		path, err := e.write(base, root)
		if err != nil {
			notes = append(notes, fmt.Sprintf("%s is left as it is: %v", v.name, err))
			continue
		}
		vars = append(vars, Var{v.name, path})
		if before[v.name] != "" {
			keep[v.name] = before[v.name]
		}
	}
	if len(unset) > 0 {
		notes = append(notes, "the system's list of CAs is in no file, so these are not set: "+strings.Join(unset, ", "))
	}
	if len(vars) == 0 {
		return nil, notes, nil
	}
	text, err := json.Marshal(keep)
	if err != nil {
		return nil, nil, err
	}
	return append(vars, Var{saved, string(text)}), notes, nil
}

// fallback is the list that a program reads without the variable.
func (e *Env) fallback(name string, before map[string]string) string {
	var base string
	switch {
	case name == gitCAInfo && e.Git != nil:
		base = e.Git()
	case name == "REQUESTS_CA_BUNDLE":
		base = before[curlBundle]
	}
	for _, other := range []string{base, before[sslCertFile], e.system()} {
		if other != "" {
			return other
		}
	}
	return ""
}

// before is what the variables named before Make, of those that named something. A
// relative path is the shell's, which will go elsewhere.
func (e *Env) before() map[string]string {
	kept := make(map[string]string)
	_ = json.Unmarshal([]byte(e.Getenv(saved)), &kept) // of nothing it is nothing
	before := make(map[string]string)
	for _, v := range variables {
		value := e.Getenv(v.name)
		if e.ours(value) {
			value = kept[v.name]
		}
		if abs, err := filepath.Abs(value); value != "" && err == nil {
			before[v.name] = abs
		}
	}
	return before
}

// Unmake returns the variables as they were before Make. Variables that have been set to
// something else meanwhile are not among them.
func (e *Env) Unmake() []Var {
	var vars []Var
	before := e.before()
	for _, v := range variables {
		if e.ours(e.Getenv(v.name)) {
			vars = append(vars, Var{v.name, before[v.name]})
		}
	}
	if strings.Contains(e.Getenv(javaOptions), e.storeOptions()) {
		vars = append(vars, Var{javaOptions, e.withoutStore()})
	}
	if e.Getenv(saved) != "" {
		vars = append(vars, Var{saved, ""})
	}
	return vars
}

func (e *Env) ours(path string) bool { return path != "" && filepath.Dir(path) == e.Dir }

// system is the system's list; empty if it is in no file.
func (e *Env) system() string {
	for _, path := range e.System {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path
		}
	}
	return ""
}

// ErrOtherStore says that Java programs of this shell have been given a trust store
// by somebody else, which must not be taken away from them.
var ErrOtherStore = errors.New(javaOptions + " names a trust store already")

// Java writes a trust store of the system's list and the root, and returns the
// variable that makes every Java program of the shell read it instead of its own. (It
// also makes each say so on standard error.) The error may be ErrOtherStore.
func (e *Env) Java(root *x509.Certificate) (Var, error) {
	options := e.withoutStore()
	if strings.Contains(options, storeOption) {
		return Var{}, ErrOtherStore
	}
	if strings.Contains(e.Dir, "'") && strings.Contains(e.Dir, `"`) {
		return Var{}, fmt.Errorf("%s can name no file in %s, which has both quotes", javaOptions, e.Dir)
	}
	if err := e.writeStore(root); err != nil {
		return Var{}, fmt.Errorf("write the trust store for Java: %w", err)
	}
	return Var{javaOptions, strings.TrimSpace(options + " " + e.storeOptions())}, nil
}

const storeOption = "-Djavax.net.ssl.trustStore"

// storeOptions are what Java adds to JAVA_TOOL_OPTIONS, where quotes keep blanks (see
// the JVM Tool Interface, "The JAVA_TOOL_OPTIONS Environment Variable").
func (e *Env) storeOptions() string {
	path := filepath.Join(e.Dir, storeFile)
	switch {
	case strings.Contains(path, "'"):
		path = `"` + path + `"`
	case strings.ContainsAny(path, " \t\""):
		path = "'" + path + "'"
	}
	return fmt.Sprintf("%s=%s %[1]sType=PKCS12 %[1]sPassword=%[3]s", storeOption, path, password)
}

// withoutStore is JAVA_TOOL_OPTIONS without what Java has added.
func (e *Env) withoutStore() string {
	return strings.TrimSpace(strings.ReplaceAll(e.Getenv(javaOptions), e.storeOptions(), ""))
}
