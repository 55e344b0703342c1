from appliance.supervisor.warnings import Warnings


def test_a_warning_stands_until_it_is_ended_and_each_change_is_told_once() -> None:
    warnings, told = Warnings(), []
    warnings.listeners.append(lambda: told.append([w.text for w in warnings.standing]))
    warnings.warn("lan-missing", "lan0", "warning", "it is not there")
    warnings.warn("lan-missing", "lan1", "warning", "nor is that")
    (first, _) = warnings.standing
    warnings.warn("lan-missing", "lan0", "warning", "it is not there")  # no news
    warnings.warn("lan-missing", "lan2", "warning", None)  # nor that there is nothing
    warnings.warn("lan-missing", "lan0", "warning", "it is still not there")
    assert (warnings.standing[0].since, warnings.standing[0].text) == (
        first.since,
        "it is still not there",
    )
    warnings.warn("lan-missing", "lan0", "warning", None)
    assert told == [
        ["it is not there"],
        ["it is not there", "nor is that"],
        ["it is still not there", "nor is that"],
        ["nor is that"],
    ]
