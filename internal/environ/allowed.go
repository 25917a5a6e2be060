package environ

import (
	"net/url"
	"strings"
)

// A group is variables that are wanted for the same reason.
type group struct {
	why string
	// names are whole, and prefixes the beginning of names, both upper case unless
	// programs want them otherwise.
	names, prefixes []string
}

// allowed is all that is ever taken from a shell. HOME, USER, LOGNAME and SHELL are
// not in it, since the service manager sets them, and neither is XDG_STATE_HOME, since
// what was taken lies there. docs/environment.md has the same table for people.
func allowed() []group {
	return []group{
		{
			why:   "where credential plugins are, and what the shims of version managers go by",
			names: []string{"PATH", "PYENV_ROOT", "NVM_DIR", "VOLTA_HOME", "KREW_ROOT"}, prefixes: []string{"ASDF_", "MISE_"},
		},
		{
			why:   "where clusters and credentials are noted",
			names: []string{"KUBECONFIG"},
		},
		{
			why: "how the network is reached",
			names: []string{
				"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
				"http_proxy", "https_proxy", "no_proxy", "all_proxy",
			},
		},
		{
			why:   "which certificates plugins trust, where a company has a CA of its own",
			names: []string{"SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"},
		},
		{
			why:   "in which language and time zone plugins speak",
			names: []string{"LANG", "LANGUAGE", "TZ"}, prefixes: []string{"LC_"},
		},
		{
			why:   "where plugins keep their files",
			names: []string{"XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"},
		},
		{
			why: "how plugins reach the keyring, the agents and the browser of the session",
			names: []string{
				"DBUS_SESSION_BUS_ADDRESS", "SSH_AUTH_SOCK", "GNUPGHOME", "PASSWORD_STORE_DIR",
				"DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "XDG_CURRENT_DESKTOP", "BROWSER",
			},
		},
		{
			why:   "whose account at a cloud or an identity provider it is, and where",
			names: []string{"USE_GKE_GCLOUD_AUTH_PLUGIN", "GOOGLE_APPLICATION_CREDENTIALS"},
			prefixes: []string{
				"AWS_", "CLOUDSDK_", "GOOGLE_", "AZURE_", "AAD_", "ARM_", "OCI_", "IBMCLOUD_", "DIGITALOCEAN_",
				"ALIBABA_CLOUD_", "OS_", "SAML2AWS_", "OKTA_", "TELEPORT_", "VAULT_", "OP_",
			},
		},
	}
}

// isAllowed reports whether a variable of that name may be taken, and whether its
// name stands in the list as it is.
func isAllowed(name string) (allow, exact bool) {
	for _, g := range allowed() {
		for _, n := range g.names {
			if n == name {
				return true, true
			}
		}
		for _, p := range g.prefixes {
			if strings.HasPrefix(name, p) && len(name) > len(p) {
				allow = true
			}
		}
	}
	return allow, false
}

// secretWords, as a part of a name between underscores, are of what is nobody else's
// business. An access key's id goes with the key: programs fail that find one of them.
var secretWords = [...]string{
	"SECRET", "SECRETS", "PASSWORD", "PASSWD", "PASSPHRASE", "PASSCODE", "PASS", "PWD", "PIN", "TOKEN", "TOKENS", "PAT",
	"KEY", "KEYS", "APIKEY", "CREDENTIAL", "CREDENTIALS", "COOKIE", "JWT", "SAS", "SESSION", "CONNECTION", "ASSERTION", "OTP", "MFA",
}

// placeWords, at the end of a name, say that its value only tells where something is,
// or what it is called.
var placeWords = [...]string{"FILE", "PATH", "DIR", "URL", "URI", "ENDPOINT", "NAME", "ARN"}

// isSecret reports whether a variable looks as if its value were a secret. exact is
// of isAllowed: what was looked at by whoever wrote the list is not judged by its name.
func isSecret(name, value string, exact bool) bool {
	if !exact && hasSecretName(name) {
		return true
	}
	return strings.Contains(value, "PRIVATE KEY-----") || hasPassword(value)
}

func hasSecretName(name string) bool {
	words := strings.Split(strings.ToUpper(name), "_")
	for _, place := range placeWords {
		if words[len(words)-1] == place {
			return false
		}
	}
	for _, word := range words {
		for _, secret := range secretWords {
			if word == secret {
				return true
			}
		}
	}
	return false
}

// hasPassword reports whether a value is a URL with a password in it. Proxies may be
// written without a scheme.
func hasPassword(value string) bool {
	for _, text := range []string{value, "http://" + value} {
		if u, err := url.Parse(text); err == nil && u.User != nil {
			if _, has := u.User.Password(); has {
				return true
			}
		}
	}
	// What net/url does not read may be read by others, who split at the same places.
	_, rest, ok := strings.Cut(value, "://")
	if !ok {
		return false
	}
	authority, _, _ := strings.Cut(rest, "/")
	who, _, ok := strings.Cut(authority, "@")
	return ok && strings.Contains(who, ":")
}
