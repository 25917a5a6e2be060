// Command dist makes what is published of tunneld, from the sources alone: the
// same sources, toolchain and version make the same bytes, wherever and whenever.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "dist: error:", err)
		os.Exit(1)
	}
}

// platforms are those that something is published for.
var platforms = []platform{
	{"linux", "amd64"}, {"linux", "arm64"},
	{"darwin", "amd64"}, {"darwin", "arm64"},
	{"windows", "amd64"}, {"windows", "arm64"},
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("dist", flag.ExitOnError)
	root := flags.String("root", "../..", "the repository")
	out := flags.String("out", "dist", "where to put what is made, below the repository; what is there is removed, unless -only is given")
	version := flags.String("version", "", "which version it is; empty: the commit's")
	only := flags.String("only", "", "deb or rpm: make only that")
	on := flags.String("platform", "", "make only what is for this one, like linux/amd64; empty: for all")
	if err := flags.Parse(args); err != nil {
		return err
	}
	// All paths below are the repository's.
	if err := os.Chdir(*root); err != nil {
		return err
	}
	r, err := newRelease(".", *version)
	if err != nil {
		return err
	}
	if err := settle(r); err != nil {
		return err
	}
	wanted := slices.DeleteFunc(slices.Clone(platforms), func(p platform) bool {
		return *on != "" && p.String() != *on || *only != "" && p.os != "linux"
	})
	if len(wanted) == 0 || !slices.Contains([]string{"", "deb", "rpm"}, *only) {
		return fmt.Errorf("there is no %s for %s", *only, *on)
	}
	work, err := os.MkdirTemp("", "tunneld-dist-")
	if err != nil {
		return err
	}
	d := dist{release: r, out: *out, work: work, log: os.Stdout}
	return errors.Join(d.make(ctx, wanted, *only), os.RemoveAll(work))
}

// settle sets the environment of all programs that are run: nothing of the user's
// settings may get into what is made.
func settle(r release) error {
	for _, set := range [][2]string{
		{"GOENV", "off"}, {"GOFLAGS", ""}, {"GOWORK", "off"}, {"GOEXPERIMENT", ""}, {"GOFIPS140", "off"},
		{"GOAMD64", "v1"}, {"GOARM64", "v8.0"}, {"CGO_ENABLED", "0"},
		{"TZ", "UTC"}, {"LC_ALL", "C"},
		{"SOURCE_DATE_EPOCH", fmt.Sprint(r.time.Unix())},
	} {
		if err := os.Setenv(set[0], set[1]); err != nil {
			return err
		}
	}
	return nil
}

// A dist is one run: what is made goes to out, and what is made on the way to
// work.
type dist struct {
	release
	out, work string
	log       io.Writer
}

func (d dist) make(ctx context.Context, wanted []platform, only string) error {
	if only == "" {
		if err := os.RemoveAll(d.out); err != nil {
			return err
		}
	}
	shared := filepath.Join(d.work, "shared")
	if err := d.stage(ctx, shared); err != nil {
		return err
	}
	for _, p := range wanted {
		if err := d.publish(ctx, p, shared, only); err != nil {
			return fmt.Errorf("for %s: %w", p, err)
		}
	}
	if only != "" {
		return nil
	}
	if err := d.formula(); err != nil {
		return fmt.Errorf("writing the formula: %w", err)
	}
	return d.sums()
}

// publish makes what there is for p.
func (d dist) publish(ctx context.Context, p platform, shared, only string) error {
	if err := d.build(ctx, p); err != nil {
		return err
	}
	notices, err := d.notices(ctx, p)
	if err != nil {
		return fmt.Errorf("gathering licenses: %w", err)
	}
	for _, format := range []string{"deb", "rpm"} {
		if p.os != "linux" || only != "" && only != format {
			continue
		}
		if err := d.pack(format, p, shared, notices); err != nil {
			return fmt.Errorf("making the %s: %w", format, err)
		}
	}
	if only != "" {
		return nil
	}
	if err := d.archive(p, shared, notices); err != nil {
		return fmt.Errorf("making the archive: %w", err)
	}
	if err := d.sbom(p); err != nil {
		return fmt.Errorf("writing the SBOM: %w", err)
	}
	return nil
}

// name is what the files for p are called, without what says which kind they are.
func (d dist) name(p platform) string {
	return fmt.Sprintf("tunneld_%s_%s_%s", d.number(), p.os, p.arch)
}

// save puts one finished file into out, and says so.
func (d dist) save(name string, data []byte) error {
	if err := write(filepath.Join(d.out, name), data); err != nil {
		return err
	}
	_, err := fmt.Fprintln(d.log, filepath.Join(filepath.Base(d.out), name))
	return err
}

// sums writes SHA256SUMS, of all that is in out.
func (d dist) sums() error {
	files, err := os.ReadDir(d.out)
	if err != nil {
		return err
	}
	var list bytes.Buffer
	for _, file := range files {
		sum, err := d.sum(file.Name())
		if err != nil {
			return err
		}
		fmt.Fprintf(&list, "%s  %s\n", sum, file.Name())
	}
	return d.save("SHA256SUMS", list.Bytes())
}

// sum is the SHA-256 of a file in out, in hexadecimal.
func (d dist) sum(name string) (string, error) {
	data, err := os.ReadFile(filepath.Join(d.out, name))
	return fmt.Sprintf("%x", sha256.Sum256(data)), err
}

// write writes a file, and makes its directory.
func write(name string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, data, 0o644)
}

// copyFile copies one file, and makes its directory.
func copyFile(to, from string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return write(to, data)
}

// lines are the lines of text that are not empty.
func lines(text []byte) []string {
	return strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' || r == '\r' })
}
