package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// A platform is what a program is built for.
type platform struct{ os, arch string }

func (p platform) String() string { return p.os + "/" + p.arch }

// programs are those that are published for it: no helper on Windows, where there
// is none yet.
func (p platform) programs() []string {
	if p.os == "windows" {
		return []string{"tunneld", "tunnelctl"}
	}
	return []string{"tunneld", "tunnelctl", "tunneld-helper"}
}

// file is how a program's file is called there.
func (p platform) file(program string) string {
	if p.os == "windows" {
		return program + ".exe"
	}
	return program
}

// bin is where build puts the programs for p.
func (d dist) bin(p platform) string { return filepath.Join(d.work, p.os+"-"+p.arch, "bin") }

// build builds the programs for p. They are not told where they were built and
// from which repository, and have no symbols, which a stack trace takes none of.
func (d dist) build(ctx context.Context, p platform) error {
	bin := d.bin(p)
	if _, err := os.Stat(bin); err == nil {
		return nil
	}
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	args := []string{"build", "-trimpath", "-buildvcs=false",
		"-ldflags=-s -w -X github.com/tunneld/tunneld/internal/version.release=" + d.version,
		"-o", bin + string(filepath.Separator)}
	for _, program := range p.programs() {
		args = append(args, "./cmd/"+program)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "GOOS="+p.os, "GOARCH="+p.arch)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building for %s: %w\n%s", p, err, out)
	}
	return nil
}

// completions has the programs of this machine write their completions, into
// directories by the shell's name.
func (d dist) completions(ctx context.Context, dir string) error {
	here := platform{runtime.GOOS, runtime.GOARCH}
	if err := d.build(ctx, here); err != nil {
		return err
	}
	for shell, name := range map[string]string{"bash": "%s", "zsh": "_%s", "fish": "%s.fish"} {
		for _, program := range []string{"tunneld", "tunnelctl"} {
			cmd := exec.CommandContext(ctx, filepath.Join(d.bin(here), here.file(program)), "completion", shell)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			script, err := cmd.Output()
			if err != nil {
				return fmt.Errorf("having %s write its completions for %s: %w\n%s", program, shell, err, stderr.Bytes())
			}
			if err := write(filepath.Join(dir, shell, strings.ReplaceAll(name, "%s", program)), script); err != nil {
				return err
			}
		}
	}
	return nil
}
