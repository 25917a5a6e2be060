package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	cyclonedx "github.com/CycloneDX/cyclonedx-go"
	"github.com/CycloneDX/cyclonedx-gomod/pkg/generate/bin"
	"github.com/rs/zerolog"
)

// sbom writes what is in the programs for p, by what they say themselves: one list
// for all of them, in which each depends on the modules that it has.
func (d dist) sbom(p platform) error {
	all := cyclonedx.NewBOM()
	all.Metadata = &cyclonedx.Metadata{
		Timestamp: d.time.Format(time.RFC3339),
		Component: &cyclonedx.Component{
			BOMRef: "tunneld", Type: cyclonedx.ComponentTypeApplication, Name: "tunneld", Version: d.version,
			Licenses: &cyclonedx.Licenses{{License: &cyclonedx.License{ID: "Apache-2.0"}}},
		},
	}
	programs := cyclonedx.Dependency{Ref: "tunneld", Dependencies: &[]string{}}
	var components []cyclonedx.Component
	var dependencies []cyclonedx.Dependency
	for _, program := range p.programs() {
		one, err := d.bom(p, program)
		if err != nil {
			return fmt.Errorf("of %s: %w", program, err)
		}
		*programs.Dependencies = append(*programs.Dependencies, one.Metadata.Component.BOMRef)
		components = slices.Concat(components, []cyclonedx.Component{*one.Metadata.Component}, *one.Components)
		dependencies = append(dependencies, *one.Dependencies...)
	}
	slices.SortStableFunc(components, func(a, b cyclonedx.Component) int { return strings.Compare(a.BOMRef, b.BOMRef) })
	slices.SortStableFunc(dependencies, func(a, b cyclonedx.Dependency) int { return strings.Compare(a.Ref, b.Ref) })
	components = slices.CompactFunc(components, func(a, b cyclonedx.Component) bool { return a.BOMRef == b.BOMRef })
	dependencies = slices.CompactFunc(dependencies, func(a, b cyclonedx.Dependency) bool { return a.Ref == b.Ref })
	dependencies = slices.Insert(dependencies, 0, programs)
	all.Components, all.Dependencies = &components, &dependencies

	var encoded bytes.Buffer
	if err := cyclonedx.NewBOMEncoder(&encoded, cyclonedx.BOMFileFormatJSON).SetPretty(true).Encode(all); err != nil {
		return err
	}
	return d.save(d.name(p)+".cdx.json", encoded.Bytes())
}

// bom is what one program for p has in it.
func (d dist) bom(p platform, program string) (*cyclonedx.BOM, error) {
	file := filepath.Join(d.bin(p), p.file(program))
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	generator, err := bin.NewGenerator(file,
		bin.WithIncludeStdlib(true), bin.WithVersionOverride(d.version), bin.WithLogger(zerolog.Nop()))
	if err != nil {
		return nil, err
	}
	bom, err := generator.Generate()
	if err != nil {
		return nil, err
	}
	main := bom.Metadata.Component
	main.Name = p.file(program)
	main.Hashes = &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: fmt.Sprintf("%x", sha256.Sum256(data))}}
	return bom, nil
}
