models() {
    for user in "$home/users/@runtime@"/*; do
        [ -e "$live/${user##*/}" ] && printf '%s\n' "${user##*/}"
    done
    return 0
}

# Every model that is in use must answer by this runtime as it did where it was packed.
configure() {
    have_user
    as_user "$home/@runtime@/start" -h >/dev/null
    for model in $(models); do
        if ! as_user "$home/@runtime@/start" selftest "$live/$model"; then
            say "the self-test of $model failed, so the runtime before this one stays in use"
            exit 1
        fi
    done
    go_live @runtime@
    for model in $(models); do
        renew_service "edgeml-$model"
    done
    sweep @runtime@
}

retire() {
    retire_part @runtime@
}

forget() {
    :
}

purge() {
    drop_user
}

