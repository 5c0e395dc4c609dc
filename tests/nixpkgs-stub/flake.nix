{
  description = "As much of nixpkgs as flake.nix uses, to evaluate it where there is no network";

  outputs =
    { self }:
    let
      packagesFor =
        system:
        let
          derivationOf =
            name: attributes:
            derivation (
              {
                inherit name system;
                builder = "/bin/sh";
              }
              // attributes
            );
          package = name: derivationOf name { };
        in
        {
          lib.licenses = {
            mit = "MIT";
            asl20 = "Apache-2.0";
          };
          python3 = package "python3";
          python3Packages = {
            rich = package "rich";
            typer = package "typer";
            buildPythonPackage =
              {
                pname,
                version,
                pyproject,
                src,
                cargoDeps,
                nativeBuildInputs,
                dependencies,
                doCheck,
                pythonImportsCheck,
                meta,
              }:
              assert pyproject;
              derivationOf "${pname}-${version}" {
                inherit
                  src
                  cargoDeps
                  nativeBuildInputs
                  dependencies
                  ;
              }
              // {
                inherit meta;
              };
          };
          rustPlatform = {
            importCargoLock =
              { lockFile }:
              let
                lock = builtins.fromTOML (builtins.readFile lockFile);
              in
              derivationOf "cargo-deps-of-${toString (builtins.length lock.package)}-crates" { };
            cargoSetupHook = package "cargo-setup-hook";
            maturinBuildHook = package "maturin-build-hook";
          };
          cargo = package "cargo";
          clippy = package "clippy";
          gnumake = package "gnumake";
          rustc = package "rustc";
          rustfmt = package "rustfmt";
          mkShell = { packages }: derivationOf "shell" { inherit packages; };
          runCommand =
            name: attributes: script:
            derivationOf name { inherit script; };
          writeShellScript = name: text: derivationOf name { inherit text; };
        };
    in
    {
      legacyPackages = builtins.listToAttrs (
        map
          (system: {
            name = system;
            value = packagesFor system;
          })
          [
            "x86_64-linux"
            "aarch64-linux"
            "x86_64-darwin"
            "aarch64-darwin"
          ]
      );
    };
}
