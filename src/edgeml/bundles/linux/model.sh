configure() {
    have_user
    if ! as_user "$live/@runtime@/start" selftest "$home/@name@"; then
        if [ -e "$live/@name@" ]; then
            say 'the self-test failed, so the version before this one stays in use'
        else
            say 'the self-test failed, so this model is not used'
        fi
        exit 1
    fi
    if [ -e "$live/@name@" ]; then
        go_live @name@
        renew_service @package@
    else
        go_live @name@
        begin_service @package@
    fi
    sweep @name@
}

retire() {
    end_service @package@
    retire_part @name@
}

forget() {
    forget_service
}

purge() {
    rm -rf /var/lib/edgeml/@name@ /var/cache/edgeml/@name@
    drop_user
}

