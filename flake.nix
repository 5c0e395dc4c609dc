{
  description = "Every node of an application finds, authenticates and reaches every other node: signed peer discovery on iroh";

  # One input. Any branch with Rust 1.91 or newer does, and this one surely has it; the first run writes flake.lock.
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
        "x86_64-darwin"
        "aarch64-darwin"
      ];
      each =
        make:
        builtins.listToAttrs (
          map (system: {
            name = system;
            value = make nixpkgs.legacyPackages.${system};
          }) systems
        );
      cargo = builtins.fromTOML (builtins.readFile ./Cargo.toml);

      packageFor =
        pkgs:
        pkgs.python3Packages.buildPythonPackage {
          pname = "iroh-gossip-discovery";
          version = cargo.workspace.package.version;
          pyproject = true;
          src = self;
          # Cargo.lock holds the checksum of every crate: no hash to keep here.
          cargoDeps = pkgs.rustPlatform.importCargoLock { lockFile = ./Cargo.lock; };
          nativeBuildInputs = [
            pkgs.rustPlatform.cargoSetupHook
            pkgs.rustPlatform.maturinBuildHook
            pkgs.cargo
            pkgs.rustc
          ];
          dependencies = [
            pkgs.python3Packages.rich
            pkgs.python3Packages.typer
          ];
          # The tests open sockets and network namespaces; checks below run what the sandbox allows.
          doCheck = false;
          pythonImportsCheck = [ "iroh_gossip_discovery" ];
          meta = {
            description = "Signed peer discovery over iroh's QUIC, for asyncio";
            license = [
              pkgs.lib.licenses.mit
              pkgs.lib.licenses.asl20
            ];
            mainProgram = "iroh-gossip-discovery";
          };
        };

      # `nix run .#test-network 10 60` is `iroh-gossip-discovery test-network 10 60`.
      appFor = pkgs: command: {
        type = "app";
        program = "${pkgs.writeShellScript "iroh-gossip-discovery-${command}" ''
          exec ${packageFor pkgs}/bin/iroh-gossip-discovery ${command} "$@"
        ''}";
      };
    in
    {
      packages = each (pkgs: {
        default = packageFor pkgs;
      });

      apps = each (pkgs: rec {
        default = demo;
        demo = appFor pkgs "demo";
        test-network = appFor pkgs "test-network";
      });

      # `make` sets up everything else in .venv, as without nix.
      devShells = each (pkgs: {
        default = pkgs.mkShell {
          packages = [
            pkgs.cargo
            pkgs.clippy
            pkgs.gnumake
            pkgs.python3
            pkgs.rustc
            pkgs.rustfmt
          ];
        };
      });

      checks = each (pkgs: {
        package = packageFor pkgs;
        # Real processes on the sandbox's loopback interface.
        test-network = pkgs.runCommand "iroh-gossip-discovery-test-network" { } ''
          ${packageFor pkgs}/bin/iroh-gossip-discovery test-network 5 5
          touch $out
        '';
      });
    };
}
