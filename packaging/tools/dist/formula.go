package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"text/template"
)

// formula writes the Homebrew formula, with the archives' checksums. Where not all
// archives that it names have been made, there is none.
func (d dist) formula() error {
	text, err := os.ReadFile("packaging/homebrew/tunneld.rb")
	if err != nil {
		return err
	}
	values := struct {
		Version string
		SHA256  map[string]string
	}{d.number(), map[string]string{}}
	for _, p := range platforms {
		if p.os == "windows" {
			continue
		}
		sum, err := d.sum(d.name(p) + ".tar.gz")
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
		values.SHA256[p.os+"_"+p.arch] = sum
	}
	// What is missing is an error, not an empty checksum.
	formula, err := template.New("").Option("missingkey=error").Parse(string(text))
	if err != nil {
		return err
	}
	var filled bytes.Buffer
	if err := formula.Execute(&filled, values); err != nil {
		return err
	}
	return d.save("tunneld.rb", filled.Bytes())
}
