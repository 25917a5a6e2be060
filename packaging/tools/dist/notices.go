package main

import (
	"bytes"
	"cmp"
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// license is how files are called that say on which terms a module may be passed
// on, or what has to be passed on with it.
var license = regexp.MustCompile(`(?i)^(licen[cs]e|copying|copyright|notice|patents)([-._].*)?$`)

// A work is a module in a program, or the Go distribution, whose runtime and
// library are in each.
type work struct{ name, dir string }

// notices are the terms of all works that are in the programs for p: who passes on
// the programs has to pass on these.
func (d dist) notices(ctx context.Context, p platform) ([]byte, error) {
	works, err := d.works(ctx, p)
	if err != nil {
		return nil, err
	}
	of := map[string][]string{} // who has a text, by the text
	for _, w := range works {
		texts, err := terms(w)
		if err != nil {
			return nil, fmt.Errorf("reading the license of %s: %w", w.name, err)
		}
		for _, text := range texts {
			of[text] = append(of[text], w.name)
		}
	}
	texts := make([]string, 0, len(of))
	for text := range of {
		texts = append(texts, text)
	}
	slices.SortFunc(texts, func(a, b string) int {
		return cmp.Or(slices.Compare(of[a], of[b]), strings.Compare(a, b))
	})
	var all bytes.Buffer
	all.WriteString("tunneld is under the Apache License 2.0. Its programs have in them works of others,\nunder the terms below; these stand under the works that they are for.\n")
	for _, text := range texts {
		fmt.Fprintf(&all, "\n%s\n\n%s\n%s\n", strings.Repeat("=", 80), strings.Join(slices.Compact(of[text]), "\n"), strings.Repeat("-", 80))
		all.WriteString(text + "\n")
	}
	return all.Bytes(), nil
}

// works are what the programs for p have in them, by what they say themselves.
func (d dist) works(ctx context.Context, p platform) ([]work, error) {
	var paths []string
	for _, program := range p.programs() {
		info, err := buildinfo.ReadFile(filepath.Join(d.bin(p), p.file(program)))
		if err != nil {
			return nil, err
		}
		for _, dep := range info.Deps {
			paths = append(paths, dep.Path)
		}
	}
	slices.Sort(paths)
	listed, err := output(ctx, append([]string{"list", "-m", "-json=Path,Version,Dir"}, slices.Compact(paths)...)...)
	if err != nil {
		return nil, err
	}
	goroot, err := output(ctx, "env", "GOROOT", "GOVERSION")
	if err != nil {
		return nil, err
	}
	root := lines(goroot)
	works := []work{{"Go " + root[1], root[0]}}
	for decoder := json.NewDecoder(bytes.NewReader(listed)); ; {
		var module struct{ Path, Version, Dir string }
		if err := decoder.Decode(&module); errors.Is(err, io.EOF) {
			return works, nil
		} else if err != nil {
			return nil, err
		}
		works = append(works, work{module.Path + " " + module.Version, module.Dir})
	}
}

// terms are the texts of w's license files. There must be one.
func terms(w work) ([]string, error) {
	var texts []string
	err := fs.WalkDir(os.DirFS(w.dir), ".", func(name string, file fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case file.IsDir() && (strings.HasPrefix(w.name, "Go ") && name != "." || file.Name() == "testdata" || file.Name() == "vendor"):
			// What is below the Go distribution is under its license, or is not in
			// programs.
			return fs.SkipDir
		case file.IsDir() || !license.MatchString(file.Name()) || strings.HasSuffix(name, ".go"):
			return nil
		}
		text, err := os.ReadFile(filepath.Join(w.dir, name))
		texts = append(texts, strings.TrimSpace(strings.ReplaceAll(string(text), "\r\n", "\n")))
		return err
	})
	if err == nil && len(texts) == 0 {
		err = fmt.Errorf("there is none in %s", w.dir)
	}
	return texts, err
}

// output runs the go command in the repository.
func output(ctx context.Context, args ...string) ([]byte, error) {
	out, err := exec.CommandContext(ctx, "go", args...).Output()
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		return nil, fmt.Errorf("go %s: %s", args[0], bytes.TrimSpace(failed.Stderr))
	}
	return out, err
}
