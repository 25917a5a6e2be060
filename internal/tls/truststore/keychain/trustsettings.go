package keychain

import (
	"bytes"
	"crypto/sha1" // what macOS knows a certificate's trust settings by
	"crypto/x509"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

// trust is what macOS's trust settings say of a certificate.
type trust int

const (
	noTrustSettings trust = iota
	// otherTrustSettings: there are some, and they do not have it trusted for servers.
	otherTrustSettings
	trustedForServers
)

// Results of a trust setting (SecTrustSettingsResult). None means trustRoot.
const (
	resultTrustRoot   = "1"
	resultTrustAsRoot = "2"
	resultUnspecified = "4"
)

// parseTrustSettings reads what security trust-settings-export writes, a property list
// in XML. The rules are those of SecTrustSettingsCopyTrustSettings in Apple's
// documentation: no list, or an empty one, means trusted for everything; of others
// the first that applies counts. What is for one application or one host name applies to
// nobody here.
func parseTrustSettings(data []byte, cert *x509.Certificate) (trust, error) {
	value, err := parsePropertyList(data)
	if err != nil {
		return noTrustSettings, err
	}
	root, _ := value.(map[string]any)
	list, ok := root["trustList"].(map[string]any)
	if !ok {
		return noTrustSettings, errors.New("there is no trustList in them")
	}
	sum := sha1.Sum(cert.Raw)
	entry, ok := list[strings.ToUpper(hex.EncodeToString(sum[:]))].(map[string]any)
	if !ok {
		return noTrustSettings, nil
	}
	settings, _ := entry["trustSettings"].([]any)
	if len(settings) == 0 {
		return trustedForServers, nil
	}
	for _, s := range settings {
		setting, ok := s.(map[string]any)
		if !ok || !forServers(setting) {
			continue
		}
		switch setting["kSecTrustSettingsResult"] {
		case nil, resultTrustRoot, resultTrustAsRoot:
			return trustedForServers, nil
		case resultUnspecified:
		default:
			return otherTrustSettings, nil
		}
	}
	return otherTrustSettings, nil
}

// forServers reports whether a setting is for all TLS servers.
func forServers(setting map[string]any) bool {
	for _, narrow := range []string{"kSecTrustSettingsApplication", "kSecTrustSettingsPolicyString"} {
		if _, ok := setting[narrow]; ok {
			return false
		}
	}
	if _, ok := setting["kSecTrustSettingsPolicy"]; !ok {
		return true
	}
	return setting["kSecTrustSettingsPolicyName"] == "sslServer"
}

// parsePropertyList reads Apple's property lists in XML: map[string]any for a dict, []any
// for an array, and the text of everything else.
func parsePropertyList(data []byte) (any, error) {
	d := xml.NewDecoder(bytes.NewReader(data))
	start, err := nextElement(d)
	if err != nil {
		return nil, err
	}
	if start == nil || start.Name.Local != "plist" {
		return nil, errors.New("no property list in XML")
	}
	if start, err = nextElement(d); err != nil {
		return nil, err
	}
	if start == nil {
		return nil, errors.New("an empty property list")
	}
	return propertyValue(d, *start, 0)
}

// maxPropertyDepth is how deep values may be nested. Trust settings have five levels.
const maxPropertyDepth = 20

func propertyValue(d *xml.Decoder, start xml.StartElement, depth int) (any, error) {
	if depth > maxPropertyDepth {
		return nil, errors.New("values are nested too deep")
	}
	switch start.Name.Local {
	case "dict":
		return propertyDict(d, depth)
	case "array":
		array := []any{}
		for {
			element, err := nextElement(d)
			if err != nil || element == nil {
				return array, err
			}
			value, err := propertyValue(d, *element, depth+1)
			if err != nil {
				return nil, err
			}
			array = append(array, value)
		}
	}
	var text string
	if err := d.DecodeElement(&text, &start); err != nil {
		return nil, err
	}
	return strings.TrimSpace(text), nil
}

func propertyDict(d *xml.Decoder, depth int) (map[string]any, error) {
	dict := map[string]any{}
	for {
		element, err := nextElement(d)
		if err != nil || element == nil {
			return dict, err
		}
		if element.Name.Local != "key" {
			return nil, fmt.Errorf("<%s> where a key should be", element.Name.Local)
		}
		var key string
		if err := d.DecodeElement(&key, element); err != nil {
			return nil, err
		}
		if element, err = nextElement(d); err != nil {
			return nil, err
		}
		if element == nil {
			return nil, fmt.Errorf("key %q has no value", key)
		}
		if dict[key], err = propertyValue(d, *element, depth+1); err != nil {
			return nil, err
		}
	}
}

// nextElement is the next element inside of the one that was begun last; nil at its end.
func nextElement(d *xml.Decoder) (*xml.StartElement, error) {
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return nil, io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, err
		}
		switch t := token.(type) {
		case xml.StartElement:
			return &t, nil
		case xml.EndElement:
			return nil, nil
		}
	}
}
