// Package caenv makes environment variables for programs that bring a list of CAs of
// their own, or whose system's list cannot be changed, so that they trust one more.
//
// Some of these variables add to a program's list. Others replace it: a program that
// is given only a local CA trusts no other server any more. Those are given a file
// of both: the list that they would have used, and the local CA.
package caenv

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	pkcs12 "software.sslmate.com/src/go-pkcs12"

	"github.com/tunneld/tunneld/internal/atomicfile"
)

// A Var is an environment variable.
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
	// System are the files of which the first that can be read is the system's list.
	System []string
}

// SystemBundles are where systems keep their list of CAs in one file, as Go's
// crypto/x509 looks for it. Windows has none.
func SystemBundles() []string {
	return []string{
		"/etc/ssl/certs/ca-certificates.crt",                // Debian, Arch
		"/etc/pki/tls/certs/ca-bundle.crt",                  // Fedora, RHEL
		"/etc/ssl/ca-bundle.pem",                            // SUSE
		"/etc/pki/tls/cacert.pem",                           // OpenELEC
		"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // RHEL 7 and later
		"/etc/ssl/cert.pem",                                 // Alpine, macOS, BSD
	}
}

var (
	// adding are the variables whose file is read besides a program's own list.
	adding = [...]string{"NODE_EXTRA_CA_CERTS", "DENO_CERT"}
	// replacing are those whose file is read instead of it: OpenSSL and Go; Python's
	// requests and pip; curl; git; the AWS tools; gRPC's C core; cargo. SSL_CERT_FILE is
	// the first since what it names is what the others would have used.
	replacing = [...]string{"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "AWS_CA_BUNDLE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "CARGO_HTTP_CAINFO"}
)

const javaOptions = "JAVA_TOOL_OPTIONS"

// Names are all variables that Make may set.
func Names() []string { return slices.Concat(adding[:], replacing[:], []string{javaOptions}) }

// mark begins a file of ours, and is followed by the file that it was made of.
const mark = "# The local CA of tunneld, and the certificates of "

// ErrNoList says that this system has no file with its list of CAs, so that there
// is nothing to put into the place of one.
var ErrNoList = errors.New("the system's list of CAs is in no file")

// maxList bounds what is read as a list of CAs. Debian's is 220 KB.
const maxList = 32 << 20

// Make writes the files and returns the variables, to name them. The error Is
// ErrNoList if only those could be made that add to a list; they are returned.
func (e *Env) Make(root *x509.Certificate) ([]Var, error) {
	if err := os.MkdirAll(e.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of the certificates: %w", err)
	}
	var vars []Var
	for _, name := range adding {
		path, err := e.list(name, own, e.current(name), root)
		if err != nil {
			return nil, err
		}
		vars = append(vars, Var{name, path})
	}
	list := e.current(replacing[0])
	if list == "" {
		list = e.system()
	}
	if list == "" {
		return vars, ErrNoList
	}
	for _, name := range replacing {
		kind, base := own, e.current(name)
		if base == "" {
			kind, base = common, list
		}
		path, err := e.list(name, kind, base, root)
		if err != nil {
			return nil, err
		}
		vars = append(vars, Var{name, path})
	}
	return vars, nil
}

// Unmake returns the variables as they were before Make: empty ones are to be unset.
// Variables that have been set to something else meanwhile are not among them.
func (e *Env) Unmake() []Var {
	var vars []Var
	for _, name := range slices.Concat(adding[:], replacing[:]) {
		value := e.Getenv(name)
		if !e.ours(value) {
			continue
		}
		vars = append(vars, Var{name, e.current(name)})
	}
	if strings.Contains(e.Getenv(javaOptions), e.storeOptions()) {
		vars = append(vars, Var{javaOptions, e.withoutStore()})
	}
	return vars
}

// Present reports whether there are files that variables may name.
func (e *Env) Present() bool {
	entries, err := os.ReadDir(e.Dir)
	return err == nil && len(entries) > 0
}

// Refresh makes the files that are there anew, for another root; those of variables
// that are not set here stay made of what they were made of.
func (e *Env) Refresh(root *x509.Certificate) error {
	entries, err := os.ReadDir(e.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for the certificates of the environment: %w", err)
	}
	var failed []error
	for _, entry := range entries {
		path := filepath.Join(e.Dir, entry.Name())
		switch {
		case entry.Name() == storeFile:
			_, err = e.store(root)
		case filepath.Ext(path) == ext:
			err = e.write(path, baseOf(path), root)
		}
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

// Remove removes the files. Shells that still name them have to be told.
func (e *Env) Remove() error {
	if err := os.RemoveAll(e.Dir); err != nil {
		return fmt.Errorf("remove the certificates of the environment: %w", err)
	}
	return nil
}

// A file's name begins with whose list it was made of.
const (
	own    = "with-"   // what the variable named before
	common = "common-" // what is everybody's, since the variable named nothing
	ext    = ".pem"
)

// current is what a variable named before Make; empty if nothing. A relative path is
// the shell's, which will go elsewhere.
func (e *Env) current(name string) string {
	value := e.Getenv(name)
	if e.ours(value) && strings.HasPrefix(filepath.Base(value), common) {
		return ""
	}
	if e.ours(value) {
		return baseOf(value)
	}
	if abs, err := filepath.Abs(value); value != "" && err == nil {
		return abs
	}
	return value
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

// list writes the file of a variable, made of base, which may be empty, and the root,
// and returns its path. A shell whose variables name something else has its own file,
// so that it does not change another's.
func (e *Env) list(name, kind, base string, root *x509.Certificate) (string, error) {
	path := filepath.Join(e.Dir, fileName(kind, base))
	if err := e.write(path, base, root); err != nil {
		return "", fmt.Errorf("write the certificates for %s: %w", name, err)
	}
	return path, nil
}

func (e *Env) write(path, base string, root *x509.Certificate) error {
	if strings.Contains(base, "\n") {
		return fmt.Errorf("%q is no path", base)
	}
	data := bytes.NewBufferString(mark + base + "\n")
	if err := pem.Encode(data, &pem.Block{Type: "CERTIFICATE", Bytes: root.Raw}); err != nil {
		return err
	}
	if base != "" {
		list, err := readList(base)
		if err != nil {
			return err
		}
		data.Write(list)
	}
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data.Bytes()) {
		return nil
	}
	return atomicfile.Write(path, data.Bytes(), 0o644)
}

// readList reads a file of certificates, which must have one: a variable may name
// anything.
func readList(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxList+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxList {
		return nil, fmt.Errorf("%s is too large for a list of certificates", path)
	}
	if block, _ := pem.Decode(data); block == nil {
		return nil, fmt.Errorf("%s has no certificate in PEM", path)
	}
	return data, nil
}

// baseOf is what a file of ours was made of.
func baseOf(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	head := make([]byte, 4096)
	n, _ := io.ReadFull(f, head)
	line, _, _ := strings.Cut(string(head[:n]), "\n")
	base, ok := strings.CutPrefix(line, mark)
	if !ok {
		return ""
	}
	return base
}

const (
	storeFile = "truststore.p12"
	// password is what Java's own list has: it is no secret, but a store needs one.
	password = "changeit"
)

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
	if _, err := e.store(root); err != nil {
		return Var{}, fmt.Errorf("write the trust store for Java: %w", err)
	}
	return Var{javaOptions, strings.TrimSpace(options + " " + e.storeOptions())}, nil
}

const storeOption = "-Djavax.net.ssl.trustStore"

// storeOptions are what Java adds to JAVA_TOOL_OPTIONS, where quotes keep blanks (see
// the JVM Tool Interface, "The JAVA_TOOL_OPTIONS Environment Variable").
func (e *Env) storeOptions() string {
	path := filepath.Join(e.Dir, storeFile)
	if strings.ContainsAny(path, " \t") {
		path = "'" + path + "'"
	}
	return fmt.Sprintf("%s=%s %[1]sType=PKCS12 %[1]sPassword=%[3]s", storeOption, path, password)
}

// withoutStore is JAVA_TOOL_OPTIONS without what Java has added.
func (e *Env) withoutStore() string {
	return strings.TrimSpace(strings.ReplaceAll(e.Getenv(javaOptions), e.storeOptions(), ""))
}

func (e *Env) store(root *x509.Certificate) (string, error) {
	system := e.system()
	if system == "" {
		return "", ErrNoList
	}
	list, err := readList(system)
	if err != nil {
		return "", err
	}
	certs := []*x509.Certificate{root}
	for block, rest := pem.Decode(list); block != nil; block, rest = pem.Decode(rest) {
		// A list may have what Go does not read, such as negative serial numbers.
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil && !cert.Equal(root) {
			certs = append(certs, cert)
		}
	}
	data, err := pkcs12.Modern.EncodeTrustStore(certs, password)
	if err != nil {
		return "", err
	}
	path := filepath.Join(e.Dir, storeFile)
	return path, atomicfile.Write(path, data, 0o644)
}

// fileName names the file that is made of base.
func fileName(kind, base string) string {
	if base == "" {
		return "root" + ext
	}
	sum := sha256.Sum256([]byte(base))
	return kind + hex.EncodeToString(sum[:4]) + ext
}
