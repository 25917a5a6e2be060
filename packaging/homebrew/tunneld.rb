# The formula as it is published: "make dist" fills in what is in double braces.
class Tunneld < Formula
  desc "Resilient forwards to Kubernetes Services, with local names and TLS"
  homepage "https://github.com/tunneld/tunneld"
  version "{{.Version}}"
  license "Apache-2.0"

  on_macos do
    on_arm do
      url "https://github.com/tunneld/tunneld/releases/download/v#{version}/tunneld_#{version}_darwin_arm64.tar.gz"
      sha256 "{{.SHA256.darwin_arm64}}"
    end
    on_intel do
      url "https://github.com/tunneld/tunneld/releases/download/v#{version}/tunneld_#{version}_darwin_amd64.tar.gz"
      sha256 "{{.SHA256.darwin_amd64}}"
    end
  end

  on_linux do
    on_arm do
      url "https://github.com/tunneld/tunneld/releases/download/v#{version}/tunneld_#{version}_linux_arm64.tar.gz"
      sha256 "{{.SHA256.linux_arm64}}"
    end
    on_intel do
      url "https://github.com/tunneld/tunneld/releases/download/v#{version}/tunneld_#{version}_linux_amd64.tar.gz"
      sha256 "{{.SHA256.linux_amd64}}"
    end
  end

  def install
    # The helper, too: "tunneld install" copies what is beside it.
    bin.install "tunneld", "tunnelctl", "tunneld-helper"
    man1.install Dir["man/*.1"]
    man8.install Dir["man/*.8"]
    bash_completion.install Dir["completions/bash/*"]
    zsh_completion.install Dir["completions/zsh/*"]
    fish_completion.install Dir["completions/fish/*"]
    prefix.install "NOTICES"
  end

  # No service of Homebrew's: it would run neither at the start of the machine nor
  # with names and low ports, which take root.
  def caveats
    <<~EOS
      To have tunneld run from the start of this machine, with names and TLS:
        sudo #{opt_bin}/tunneld install
      It runs root-owned copies, which "brew upgrade" does not replace: run that
      again afterwards. Before "brew uninstall":
        sudo #{opt_bin}/tunneld uninstall
    EOS
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/tunneld version")
    assert_match "tunneld-helper serve", shell_output("#{bin}/tunneld-helper help")
  end
end
